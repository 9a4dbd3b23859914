//! Larum's own health as alerts look at it: what sources bring, what watched groups do, and what Larum itself does, on the
//! wall clock. Pure: told what there is and what time it is.

use std::collections::{BTreeMap, VecDeque};

use larum_aggregate::time::SECOND_NS;
use larum_alert::catalogue::Health;
use larum_alert::judge::{Found, Unit};
use larum_alert::{Alert, Catalogue, Condition, Instance, Per, RuntimeAlerts, Texts, lifecycle};
use larum_view::{SourceView, View};

/// Shares are of what came within so many seconds.
const SHARE_S: u32 = 300;
/// Shares of fewer events or records say nothing.
const SHARE_OF_MIN: u64 = 100;
/// Time between the looks that are kept, seconds.
const LOOK_EVERY_S: u32 = 5;

/// What a source had brought at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Brought {
    events: u64,
    late: u64,
    skewed: u64,
    records: u64,
    rejected: u64,
}

impl Brought {
    fn of(view: &View, source: &SourceView) -> Brought {
        let mut brought = Brought::default();
        for partition in view.partitions_of(source.def.id) {
            let tally = &partition.tally;
            brought.events += tally.on_time + tally.late + tally.skewed + tally.duplicate;
            brought.late += tally.late;
            brought.skewed += tally.skewed;
            brought.records += tally.decoded + tally.rejected_total();
            brought.rejected += tally.rejected_total();
        }
        brought
    }
}

/// How a watched group fares in a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    /// Who and where.
    pub texts: Texts,
    /// The number of `larum_consumer_state`.
    pub state: i64,
    /// Age of the oldest record that is not committed, s.
    pub lag_s: f64,
}

/// What is seen of the process at a moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Commits are refused.
    pub commits_failing: bool,
    /// Share of keys that scrapes do not show.
    pub hidden_share: f64,
    /// Nobody new gets a slot.
    pub admission_closed: bool,
    /// Pushes that were given up or lost since the start.
    pub pushes_failed: u64,
    /// Alertmanagers are configured, and none has taken anything for too long.
    pub nobody_told: bool,
    /// Watched groups.
    pub consumers: Vec<Consumer>,
}

/// Remembers a few minutes.
#[derive(Default)]
pub struct HealthWatch {
    feeds: BTreeMap<String, VecDeque<(u32, Brought)>>,
    pushes_failed: VecDeque<(u32, u64)>,
}

/// Values of a subject.
type Values = BTreeMap<Health, f64>;

impl HealthWatch {
    /// Judges every alert of the runtime as of `now_ns`.
    pub fn judge(
        &mut self,
        (view, seen): (&View, &Seen),
        catalogue: &Catalogue,
        now_ns: i64,
        alerts: &mut RuntimeAlerts,
        tell: &mut dyn FnMut(&Alert, &Instance, lifecycle::Became),
    ) {
        let now_s = larum_aggregate::time::second_of(now_ns);
        let feeds: Vec<(Texts, Values)> = view
            .sources()
            .filter(|source| !source.def.topics.is_empty())
            .map(|source| {
                let texts = Texts { source: source.def.name.clone(), ..Texts::default() };
                (texts, self.feed(view, source, now_ns))
            })
            .collect();
        let larum = self.larum(view, seen, now_s);
        for alert in catalogue.alerts.iter().filter(|alert| alert.per.is_of_runtime()) {
            let found: Vec<(Found, Texts)> = match alert.per {
                Per::Feed => (feeds.iter())
                    .filter_map(|(texts, values)| Some((judged(alert, |one| holds(one, values))?, texts.clone())))
                    .collect(),
                Per::Consumer => (seen.consumers.iter())
                    .filter_map(|one| Some((judged(alert, |conditions| stands(conditions, one))?, one.texts.clone())))
                    .collect(),
                _ => {
                    judged(alert, |one| holds(one, &larum)).map(|found| (found, Texts::default())).into_iter().collect()
                }
            };
            let is_muted = alert.mutes.iter().any(|mute| mute.mutes(("", "", ""), now_s));
            let found = if is_muted { Vec::new() } else { found };
            alerts.judge(alert, now_s, found, &mut |instance, became| tell(alert, instance, became));
        }
    }

    fn feed(&mut self, view: &View, source: &SourceView, now_ns: i64) -> Values {
        let now_s = larum_aggregate::time::second_of(now_ns);
        let brought = Brought::of(view, source);
        let looks = self.feeds.entry(source.def.name.clone()).or_default();
        if looks.back().is_none_or(|(at_s, _)| at_s + LOOK_EVERY_S <= now_s) {
            looks.push_back((now_s, brought));
        }
        while looks.len() > 1 && looks.get(1).is_some_and(|(at_s, _)| at_s + SHARE_S <= now_s) {
            looks.pop_front();
        }
        let before = looks.front().map_or(brought, |(_, before)| *before);
        let mut values = Values::new();
        let mut share = |health, part: u64, whole: u64| {
            if whole >= SHARE_OF_MIN {
                values.insert(health, part as f64 / whole as f64);
            }
        };
        let events = brought.events.saturating_sub(before.events);
        share(Health::LateShare, brought.late.saturating_sub(before.late), events);
        share(Health::SkewedShare, brought.skewed.saturating_sub(before.skewed), events);
        let records = brought.records.saturating_sub(before.records);
        share(Health::RejectedShare, brought.rejected.saturating_sub(before.rejected), records);
        if let Some(clock_ns) = source.clock_ns() {
            values.insert(Health::ClockAge, (now_ns - clock_ns) as f64 / SECOND_NS as f64);
        }
        let left_out = view.served_of(source).filter(|partition| source.leaves_out(partition.start.id)).count();
        values.insert(Health::LeftOut, left_out as f64);
        values
    }

    fn larum(&mut self, view: &View, seen: &Seen, now_s: u32) -> Values {
        let looks = &mut self.pushes_failed;
        if looks.back().is_none_or(|(at_s, _)| at_s + LOOK_EVERY_S <= now_s) {
            looks.push_back((now_s, seen.pushes_failed));
        }
        while looks.len() > 1 && looks.get(1).is_some_and(|(at_s, _)| at_s + SHARE_S <= now_s) {
            looks.pop_front();
        }
        let before = looks.front().map_or(0, |(_, failed)| *failed);
        let failed = seen.pushes_failed.saturating_sub(before) + u64::from(seen.nobody_told);
        let unconserved = view.partitions().filter(|partition| !partition.is_conserved()).count() as u64;
        let is = |yes: bool| f64::from(u8::from(yes));
        Values::from([
            (Health::CommitsFailing, is(seen.commits_failing)),
            (Health::HiddenShare, seen.hidden_share),
            (Health::AdmissionClosed, is(seen.admission_closed)),
            (Health::PushesFailed, failed as f64),
            (Health::Violations, (view.tiling_violations + unconserved) as f64),
        ])
    }
}

/// Whether all of `when` hold, and none of `unless`.
fn judged(alert: &Alert, holds: impl Fn(&[Condition]) -> Option<Found>) -> Option<Found> {
    let is_excused = alert.unless.iter().any(|one| holds(std::slice::from_ref(one)).is_some());
    holds(&alert.when).filter(|_| !is_excused)
}

fn unit(health: Health) -> Unit {
    match health {
        Health::ClockAge => Unit::Seconds,
        Health::LateShare | Health::SkewedShare | Health::RejectedShare | Health::HiddenShare => Unit::Share,
        _ => Unit::Count,
    }
}

/// Whether all hold, with the value of the first.
fn holds(conditions: &[Condition], values: &Values) -> Option<Found> {
    let one = |condition: &Condition| match condition {
        Condition::All(inner) => holds(inner, values),
        Condition::Any(inner) => inner.iter().find_map(|condition| holds(std::slice::from_ref(condition), values)),
        Condition::Always => Some(Found { value: 1.0, usual: None, unit: Unit::Count }),
        Condition::Health { what, above } => {
            let value = values.get(what).copied().filter(|value| value > above)?;
            Some(Found { value, usual: None, unit: unit(*what) })
        }
        _ => None,
    };
    let found: Option<Vec<Found>> = conditions.iter().map(one).collect();
    found?.first().copied()
}

fn stands(conditions: &[Condition], consumer: &Consumer) -> Option<Found> {
    let is_so = |condition: &Condition| match condition {
        Condition::All(inner) => stands(inner, consumer).is_some(),
        Condition::Any(inner) => inner.iter().any(|one| stands(std::slice::from_ref(one), consumer).is_some()),
        Condition::Always => true,
        Condition::Consumer { at_least } => consumer.state >= *at_least,
        _ => false,
    };
    let found = Found { value: consumer.lag_s, usual: None, unit: Unit::Seconds };
    conditions.iter().all(is_so).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::catalogue::{SHIPPED, read};
    use larum_aggregate::{
        Delta, Graces, Mark, PartCut, PartitionId, PartitionStart, SourceCut, SourceDef, SourceId, Tally,
    };
    use larum_alert::Became;

    const S: i64 = SECOND_NS;
    const T: i64 = 1_773_480_000;

    /// A source that gets a Delta every second.
    struct Feed {
        view: View,
        watch: HealthWatch,
        alerts: RuntimeAlerts,
        catalogue: Catalogue,
        now_s: i64,
        next: i64,
        told: Vec<(String, Became, i64)>,
    }

    impl Feed {
        fn new() -> Feed {
            let (id, topics) = (SourceId(0), vec!["t".into()]);
            let mut view = View::default();
            view.apply(Delta {
                new_sources: vec![SourceDef { id, name: "s".into(), delay_s: 0, topics, grace: Graces::default() }],
                new_partitions: vec![PartitionStart::from_birth(PartitionId(0), id, "t", 0)],
                ..Delta::default()
            });
            let catalogue = read(SHIPPED, None).unwrap();
            let (watch, alerts) = (HealthWatch::default(), RuntimeAlerts::default());
            Feed { view, watch, alerts, catalogue, now_s: T, next: 0, told: Vec::new() }
        }

        /// A second in which these came, the clock being so far behind.
        fn second(&mut self, tally: Tally, behind_s: i64, left_out: bool, seen: &Seen) {
            self.now_s += 1;
            let (from, tick) = (self.next, (self.now_s - behind_s - 1) as u32);
            self.next += (tally.decoded + tally.rejected_total()) as i64;
            let mark = Mark { tick, end: self.next, tally };
            let part = PartCut {
                id: PartitionId(0),
                from,
                next: self.next,
                watermark_ns: Some(self.now_s * S),
                first_append_ns: Some(T * S),
                current_ns: Some(self.now_s * S),
                damaged: false,
                marks: vec![mark],
            };
            let left_out = if left_out { vec![PartitionId(0)] } else { Vec::new() };
            let clock_ns = Some((self.now_s - behind_s) * S);
            let clock = SourceCut { id: SourceId(0), clock_ns, paced_ns: 0, arrived_ns: 0, left_out };
            self.view.apply(Delta { parts: vec![part], sources: vec![clock], ..Delta::default() });
            let (now_s, told) = (self.now_s, &mut self.told);
            self.watch.judge(
                (&self.view, seen),
                &self.catalogue,
                now_s * S,
                &mut self.alerts,
                &mut |alert, _, became| {
                    told.push((alert.name.clone(), became, now_s));
                },
            );
        }

        fn became(&self, name: &str) -> Vec<Became> {
            self.told.iter().filter(|(alert, ..)| alert == name).map(|(_, became, _)| *became).collect()
        }
    }

    fn tally(events: u64, late: u64, skewed: u64, rejected: u64) -> Tally {
        let (on_time, decoded) = (events - late - skewed, events);
        Tally { on_time, late, skewed, decoded, rejected: [(0, rejected)].into(), ..Tally::default() }
    }

    /// A condition that begins after a minute and ends after fifteen, one that comes near, and what became of the alert.
    fn drill(name: &str, bad: impl Fn(&mut Feed), near: impl Fn(&mut Feed)) {
        let well = |feed: &mut Feed| feed.second(tally(1_000, 50, 1, 1), 0, false, &Seen::default());
        let mut feed = Feed::new();
        (0..60).for_each(|_| well(&mut feed));
        (0..900).for_each(|_| bad(&mut feed));
        assert_eq!(feed.became(name), [Became::Firing], "{name}");
        (0..1_200).for_each(|_| well(&mut feed));
        assert_eq!(feed.became(name), [Became::Firing, Became::Resolved], "{name}");
        let mut feed = Feed::new();
        (0..60).for_each(|_| well(&mut feed));
        (0..900).for_each(|_| near(&mut feed));
        assert_eq!(feed.became(name), [], "{name} came near");
        assert_eq!(feed.became("Watchdog"), [Became::Firing], "always");
    }

    fn seen(with: impl Fn(&mut Seen)) -> Seen {
        let mut seen = Seen::default();
        with(&mut seen);
        seen
    }

    #[test]
    fn every_alert_of_the_feed_fires_comes_near_and_is_over() {
        let none = Seen::default();
        let second = |t: Tally, behind_s, left_out| {
            move |feed: &mut Feed| feed.second(t.clone(), behind_s, left_out, &Seen::default())
        };
        drill("ClockSkew", second(tally(1_000, 0, 100, 0), 0, false), second(tally(1_000, 0, 40, 0), 0, false));
        drill("LateEvents", second(tally(1_000, 400, 0, 0), 0, false), second(tally(1_000, 200, 0, 0), 0, false));
        drill("RecordsRefused", second(tally(1_000, 0, 0, 30), 0, false), second(tally(1_000, 0, 0, 9), 0, false));
        drill("PipelineBehind", second(tally(1_000, 0, 0, 0), 150, false), second(tally(1_000, 0, 0, 0), 100, false));
        drill("PartitionLeftOut", second(tally(1_000, 0, 0, 0), 0, true), move |feed| {
            let left_out = feed.now_s % 60 < 50;
            feed.second(tally(1_000, 0, 0, 0), 0, left_out, &none);
        });
    }

    #[test]
    fn every_alert_of_the_process_fires_comes_near_and_is_over() {
        let quiet = || tally(1_000, 0, 0, 0);
        let with = |seen: Seen| move |feed: &mut Feed| feed.second(tally(1_000, 0, 0, 0), 0, false, &seen);
        // A single refusal of the disk that is mended at once is nothing.
        let now_and_then = move |feed: &mut Feed| {
            let failing = seen(|seen| seen.commits_failing = feed.now_s % 60 < 20);
            feed.second(quiet(), 0, false, &failing);
        };
        drill("CommitsFailing", with(seen(|seen| seen.commits_failing = true)), now_and_then);
        let hidden = |share| with(seen(move |seen| seen.hidden_share = share));
        drill("SeriesBudgetExhausted", hidden(0.2), hidden(0.005));
        let now_and_then = move |feed: &mut Feed| {
            let closed = seen(|seen| seen.admission_closed = feed.now_s % 60 < 50);
            feed.second(quiet(), 0, false, &closed);
        };
        drill("MemoryFull", with(seen(|seen| seen.admission_closed = true)), now_and_then);
        let failing = |feed: &mut Feed| {
            let failed = (feed.now_s - T) as u64;
            feed.second(tally(1_000, 0, 0, 0), 0, false, &seen(|seen| seen.pushes_failed = failed));
        };
        let mut feed = Feed::new();
        (0..400).for_each(|_| failing(&mut feed));
        assert_eq!(feed.became("ExportFailing"), [Became::Firing]);
        (0..1_000).for_each(|_| feed.second(quiet(), 0, false, &seen(|seen| seen.pushes_failed = 400)));
        assert_eq!(feed.became("ExportFailing"), [Became::Firing, Became::Resolved]);
        let mut feed = Feed::new();
        (0..400).for_each(|_| feed.second(quiet(), 0, false, &seen(|seen| seen.pushes_failed = 400)));
        assert_eq!(feed.became("ExportFailing"), [], "what failed before says nothing");
        drill("ExportFailing", with(seen(|seen| seen.nobody_told = true)), with(Seen::default()));
    }

    #[test]
    fn consumers_that_stand_still_are_told_of() {
        let consumer = |state| Consumer {
            texts: Texts { group: "audit".into(), topic: "t".into(), partition: "3".into(), ..Texts::default() },
            state,
            lag_s: 90.0,
        };
        let with = |state| {
            let seen = seen(move |seen| seen.consumers = vec![consumer(state)]);
            move |feed: &mut Feed| feed.second(tally(1_000, 0, 0, 0), 0, false, &seen)
        };
        drill("AuditConsumerStalled", with(2), with(1));
        drill("AuditConsumerStalled", with(3), with(0));
    }

    #[test]
    fn a_broken_invariant_is_told_at_once() {
        let mut feed = Feed::new();
        feed.second(tally(1_000, 0, 0, 0), 0, false, &Seen::default());
        assert_eq!(feed.became("InvariantBroken"), []);
        feed.view.tiling_violations = 1;
        feed.second(tally(1_000, 0, 0, 0), 0, false, &Seen::default());
        assert_eq!(feed.became("InvariantBroken"), [Became::Firing]);
        // A new epoch begins at 0.
        feed.view.tiling_violations = 0;
        (0..400).for_each(|_| feed.second(tally(1_000, 0, 0, 0), 0, false, &Seen::default()));
        assert_eq!(feed.became("InvariantBroken"), [Became::Firing, Became::Resolved]);
    }
}
