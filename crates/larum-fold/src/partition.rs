//! One partition's progress: offsets tile, the watermark only rises, ticks follow the watermark.

use larum_aggregate::time::{DISTINCT_WINDOW, PANE_S, SECOND_NS, oldest_pane, pane_of, second_of};
use larum_aggregate::{Mark, PartCut, PartitionId, PartitionStart, Tally};

use crate::worker::SourcePolicy;

/// How an event's own time stands to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// In time.
    OnTime,
    /// More than the allowed lateness behind the watermark.
    Late,
    /// More than the allowed skew ahead of its append time.
    Skewed,
}

/// Where a partition stands, to begin or to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// As fixed before the first poll.
    pub start: PartitionStart,
    /// First offset not read yet.
    pub next: i64,
    /// Highest event time seen, Unix ns.
    pub watermark_ns: Option<i64>,
    /// Append time of the first record ever read, Unix ns.
    pub first_append_ns: Option<i64>,
    /// See [`PartCut::current_ns`].
    pub current_ns: Option<i64>,
}

impl PartitionState {
    /// A partition that was never read.
    pub fn new(start: PartitionStart) -> Self {
        PartitionState { next: start.start, start, watermark_ns: None, first_append_ns: None, current_ns: None }
    }
}

/// A partition while it is read.
pub(crate) struct Partition {
    pub state: PartitionState,
    pub policy: SourcePolicy,
    from: i64,
    damaged: bool,
    marks: Vec<Mark>,
    /// Oldest pane that a window can hold at the current tick.
    oldest_pane: u32,
    /// The same for windows that tell accounts and sources apart.
    oldest_distinct_pane: u32,
    /// The last [`PartCut::current_ns`] that was handed over.
    current_cut_ns: Option<i64>,
}

impl Partition {
    pub fn new(state: PartitionState, policy: SourcePolicy) -> Self {
        let mut partition = Partition {
            from: state.next,
            damaged: false,
            marks: Vec::new(),
            oldest_pane: 0,
            oldest_distinct_pane: 0,
            current_cut_ns: state.current_ns,
            state,
            policy,
        };
        partition.set_oldest(tick_of(partition.state.watermark_ns));
        partition
    }

    fn set_oldest(&mut self, tick: u32) {
        self.oldest_pane = oldest_pane(tick, self.policy.delay_s);
        self.oldest_distinct_pane = DISTINCT_WINDOW.start_s(tick.saturating_sub(self.policy.delay_s)) / PANE_S;
    }

    /// Whether a window that tells accounts and sources apart can hold the pane at the current tick.
    #[inline]
    pub fn tells_apart(&self, pane: u32) -> bool {
        pane >= self.oldest_distinct_pane
    }

    pub fn id(&self) -> PartitionId {
        self.state.start.id
    }

    /// True for records from the origin on, which count in totals.
    #[inline]
    pub fn counts(&self, offset: i64) -> bool {
        offset >= self.state.start.origin
    }

    /// The tally of the tick that the watermark stands in, with the range now ending at `end`.
    #[inline]
    pub fn mark(&mut self, end: i64) -> &mut Tally {
        let tick = tick_of(self.state.watermark_ns);
        if self.marks.last().is_none_or(|m| m.tick != tick) {
            self.set_oldest(tick);
            self.marks.push(Mark { tick, end, tally: Tally::default() });
        }
        self.state.next = end;
        let mark = self.marked();
        mark.end = end;
        &mut mark.tally
    }

    /// The mark that was made last, by [`Partition::mark`].
    #[inline]
    pub fn marked(&mut self) -> &mut Mark {
        let last = self.marks.len() - 1;
        &mut self.marks[last]
    }

    /// Accounts for offsets up to `to` that hold no record; those below the origin are in no count.
    pub fn pass(&mut self, to: i64, lost: bool) {
        let counted = (to - self.state.next.max(self.state.start.origin)).max(0) as u64;
        let tally = self.mark(to);
        if lost {
            tally.lost += counted;
            self.damaged = true;
        } else {
            tally.absent += counted;
        }
    }

    /// Moves the watermark for an event, clamped to its record's append time.
    #[inline]
    pub fn raise(&mut self, event_ns: i64, append_ns: i64) {
        let seen = event_ns.min(append_ns);
        if self.state.watermark_ns.is_none_or(|w| seen > w) {
            self.state.watermark_ns = Some(seen);
        }
    }

    /// Timing and pane of an event, judged against `watermark_ns`; no pane if it is older than any window can hold at
    /// the current tick.
    #[inline]
    pub fn place(&self, event_ns: i64, append_ns: i64, watermark_ns: i64) -> (Timing, Option<u32>) {
        let (timing, pane_ns) = if event_ns > append_ns.saturating_add(self.policy.skew_ns) {
            (Timing::Skewed, append_ns)
        } else if event_ns < watermark_ns.saturating_sub(self.policy.lateness_ns) {
            (Timing::Late, event_ns)
        } else {
            (Timing::OnTime, event_ns)
        };
        let pane = pane_of(pane_ns);
        (timing, (pane >= self.oldest_pane).then_some(pane))
    }

    /// Notes that a record appended at `append_ns` was read at `now_ns`.
    #[inline]
    pub fn arrived(&mut self, append_ns: i64, now_ns: i64) {
        if self.state.first_append_ns.is_none() {
            self.state.first_append_ns = Some(append_ns);
        }
        if append_ns > now_ns - 60 * SECOND_NS {
            self.state.current_ns = Some(now_ns);
        }
    }

    /// What was read since the last cut; none if nothing was. That a silent partition is still live is said once a
    /// second.
    pub fn cut(&mut self) -> Option<PartCut> {
        let said_ns = self.current_cut_ns.map_or(i64::MIN, |ns| ns.saturating_add(SECOND_NS));
        let still_live = self.state.current_ns.is_some_and(|ns| ns >= said_ns);
        if self.marks.is_empty() && !still_live {
            return None;
        }
        self.current_cut_ns = self.state.current_ns;
        let cut = PartCut {
            id: self.id(),
            from: self.from,
            next: self.state.next,
            watermark_ns: self.state.watermark_ns,
            first_append_ns: self.state.first_append_ns,
            current_ns: self.state.current_ns,
            damaged: std::mem::take(&mut self.damaged),
            marks: std::mem::take(&mut self.marks),
        };
        self.from = self.state.next;
        Some(cut)
    }
}

/// The tick of a watermark; 0 before the first event.
fn tick_of(watermark_ns: Option<i64>) -> u32 {
    watermark_ns.map_or(0, second_of)
}
