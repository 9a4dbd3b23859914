//! Audit queues, told as stories: stalls, losses, new epochs, jumps; and bounds.

use larum_aggregate::time::SECOND_NS;
use larum_aggregate::{NameId, Numbered, SequenceId, SourceId, seal_sequences};
use larum_view::{AuditQueue, AuditState};

const GRACE_S: u32 = 60;

/// A queue that is told its story tick by tick.
#[derive(Default)]
struct Story {
    queue: AuditQueue,
    tick: u32,
}

impl Story {
    fn at(&mut self, tick: u32, numbers: impl IntoIterator<Item = Numbered>) -> AuditState {
        self.queue.age(tick - 1, GRACE_S);
        let mut numbers: Vec<Numbered> = numbers.into_iter().map(|n| Numbered { tick, ..n }).collect();
        for group in seal_sequences(SourceId(0), &mut numbers) {
            group.rows.iter().for_each(|row| self.queue.apply(row, tick));
        }
        self.queue.age(tick, GRACE_S);
        self.tick = tick;
        self.queue.state()
    }
}

fn number(seq: u64, delivered: bool, enqueued_s: i64) -> Numbered {
    let id = SequenceId { queue: NameId(1), producer: NameId(2), epoch: 0 };
    let enqueued_ns = enqueued_s * SECOND_NS;
    Numbered { tick: 0, id, seq: Some(seq), enqueued_ns, delivered, skewed: false }
}

fn put_in(seq: u64, at_s: i64) -> Numbered {
    number(seq, false, at_s)
}

fn came_out(seq: u64) -> Numbered {
    number(seq, true, 0)
}

fn in_epoch(epoch: u64, number: Numbered) -> Numbered {
    Numbered { id: SequenceId { epoch, ..number.id }, ..number }
}

#[test]
fn a_stalled_queue_shows_backlog_and_growing_lag_even_when_nothing_arrives() {
    let mut story = Story::default();
    story.at(100, (1..=10).flat_map(|seq| [put_in(seq, 100), came_out(seq)]));
    for tick in 101..=130 {
        story.at(tick, [put_in(u64::from(tick) - 90, i64::from(tick))]);
    }
    let state = story.at(1000, []);
    assert_eq!((state.backlog, state.oldest_ns, state.missing), (30, Some(101 * SECOND_NS), 0));
    let state = story.at(1001, (11..=40).map(came_out));
    assert_eq!(state, AuditState::default());
}

#[test]
fn a_lost_record_is_backlog_until_its_grace_is_over_and_missing_until_it_comes() {
    let mut story = Story::default();
    story.at(100, [came_out(1), came_out(2)]);
    assert_eq!(story.at(101, [number(4, true, 99)]).backlog, 2);
    assert_eq!(story.at(160, []).oldest_ns, Some(99 * SECOND_NS));
    let state = story.at(161, []);
    assert_eq!((state.backlog, state.missing, state.oldest_ns), (0, 1, None));
    assert_eq!((story.queue.counts.gaps, story.queue.counts.recovered), (1, 0));
    assert_eq!(story.at(500, [came_out(3)]), AuditState::default());
    assert_eq!((story.queue.counts.gaps, story.queue.counts.recovered), (1, 1));
    story.at(501, [came_out(3)]);
    assert_eq!(story.queue.counts.repeated, 1);
}

#[test]
fn a_record_that_comes_within_its_grace_was_never_missing() {
    let mut story = Story::default();
    story.at(100, [came_out(1), came_out(3)]);
    assert_eq!(story.at(160, [came_out(2)]), AuditState::default());
    assert_eq!(story.at(1000, []), AuditState::default());
    assert_eq!(story.queue.counts.gaps, 0);
}

#[test]
fn what_an_epoch_still_owed_is_missing_after_the_next_began() {
    let mut story = Story::default();
    story.at(100, [came_out(1), put_in(5, 100)]);
    let state = story.at(101, [in_epoch(1, came_out(3))]);
    // 2 to 5 of the old epoch; 1 and 2 of the new, which was seen to begin.
    assert_eq!((state.backlog, state.missing), (4 + 3, 0));
    assert_eq!(story.at(161, []).missing, 6);
    assert_eq!(story.queue.counts.epochs, 1);
    assert_eq!(story.at(162, (2..=5).map(came_out)).missing, 2);
}

#[test]
fn a_jump_begins_anew_and_stragglers_find_their_place() {
    let mut story = Story::default();
    story.at(100, [came_out(1), came_out(2)]);
    let state = story.at(101, [came_out(5_000_000)]);
    assert_eq!((state, story.queue.counts.jumps), (AuditState::default(), 1));
    story.at(102, [came_out(4), came_out(5_000_001)]);
    assert_eq!(story.queue.counts.jumps, 1);
    assert_eq!(story.at(162, []).missing, 1);
}

#[test]
fn the_word_of_an_unknown_producer_owes_nothing_from_before() {
    let mut story = Story::default();
    assert_eq!(story.at(100, [put_in(500, 100)]).backlog, 0);
    assert_eq!(story.at(101, [put_in(503, 101)]).backlog, 3);
    assert_eq!(story.at(102, [came_out(501), came_out(500)]).backlog, 2);
}

#[test]
fn ten_thousand_gaps_are_bounded_and_none_is_lost_from_the_count() {
    let mut story = Story::default();
    for tick in 0..100 {
        story.at(100 + tick, (0..100).map(|n| came_out(u64::from(tick) * 200 + n * 2 + 1)));
    }
    let state = story.at(1000, []);
    assert_eq!((state.missing, story.queue.counts.gaps), (9_999, 9_999));
}
