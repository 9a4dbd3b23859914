//! The naive recount of audit queues: one number at a time, one tick at a time, nothing of the core.

use std::collections::{BTreeMap, BTreeSet};

use crate::recount::Ev;

/// What a queue shows: backlog, missing, gaps, recovered, repeated, epochs, untracked, skewed.
pub type Shown = [u64; 8];

#[derive(Default)]
struct Epoch {
    number: u64,
    base: u64,
    next: u64,
    known: u64,
    delivered: BTreeSet<u64>,
    /// Numbers passed over, with the tick at which that was noticed.
    passed_over: BTreeMap<u64, i64>,
    missing: BTreeSet<u64>,
}

#[derive(Default)]
struct Queue {
    producers: BTreeMap<String, Vec<Epoch>>,
    gaps: u64,
    recovered: u64,
    repeated: u64,
    epochs: u64,
    untracked: u64,
    skewed: u64,
}

/// Events of audit queues, with their ticks and append times, in any order within a tick; what each queue shows at tick
/// `end`.
pub fn recount(events: &[(i64, i64, Ev)], end: i64, grace_s: i64) -> BTreeMap<String, Shown> {
    let mut queues: BTreeMap<String, Queue> = BTreeMap::new();
    let ticks: BTreeSet<i64> = events.iter().map(|e| e.0).filter(|tick| *tick <= end).collect();
    for tick in ticks {
        queues.values_mut().for_each(|queue| queue.age(tick - 1, grace_s));
        let mut of_tick: Vec<&(i64, i64, Ev)> = events.iter().filter(|e| e.0 == tick).collect();
        // The lowest number of all comes first if it was put in, then what came out, then what else was put in.
        let lowest = |event: &Ev| {
            let same = |e: &Ev| e.queue == event.queue && e.producer == event.producer && e.epoch == event.epoch;
            let of_same = events.iter().filter(|e| e.0 == tick && same(&e.2));
            of_same.filter_map(|e| Some((e.2.seq?, e.2.op != "deliver"))).min()
        };
        let turn = |event: &Ev| match event.op.as_str() {
            "deliver" => 1,
            _ if event.seq.map(|seq| (seq, true)) == lowest(event) => 0,
            _ => 2,
        };
        of_tick.sort_by_key(|e| (e.2.epoch, turn(&e.2), e.2.seq));
        let mut seen = BTreeSet::new();
        for (_, append_ns, event) in of_tick {
            if event.seq.is_none() && event.op != "deliver" {
                continue;
            }
            let queue = queues.entry(event.queue.clone()).or_default();
            let producer = event.producer.clone().unwrap_or_default();
            let delivered = event.op == "deliver";
            if delivered {
                let (from, to) = event.enqueued_ns.map_or((event.time_ns, *append_ns), |at| (at, event.time_ns));
                queue.skewed += u64::from(from > to);
            }
            match event.seq {
                None => queue.untracked += 1,
                Some(seq) if !delivered => queue.enqueue(&producer, event.epoch, seq),
                Some(seq) if !seen.insert((event.queue.clone(), producer.clone(), event.epoch, seq)) => {
                    queue.repeated += 1;
                }
                Some(seq) => queue.deliver(&producer, event.epoch, seq, tick),
            }
        }
    }
    queues.values_mut().for_each(|queue| queue.age(end, grace_s));
    queues.iter().map(|(name, queue)| (name.clone(), queue.shown())).collect()
}

impl Queue {
    fn epoch(&mut self, producer: &str, number: u64, seq: u64, delivered: bool) -> &mut Epoch {
        let epochs = self.producers.entry(producer.to_string()).or_default();
        if !epochs.iter().any(|e| e.number == number) {
            let newest = epochs.iter().map(|e| e.number).max();
            self.epochs += u64::from(newest.is_some());
            let base = if newest.is_some_and(|n| n < number) {
                seq.min(1)
            } else if seq <= 1 || delivered {
                seq
            } else {
                seq + 1
            };
            epochs.push(Epoch { number, base, next: base, known: base, ..Epoch::default() });
            epochs.sort_by_key(|e| e.number);
        }
        epochs.iter_mut().find(|e| e.number == number).expect("was just made")
    }

    fn enqueue(&mut self, producer: &str, number: u64, seq: u64) {
        let epoch = self.epoch(producer, number, seq, false);
        epoch.known = epoch.known.max(seq + 1);
    }

    fn deliver(&mut self, producer: &str, number: u64, seq: u64, tick: i64) {
        let epoch = self.epoch(producer, number, seq, true);
        if seq >= epoch.base {
            let (new, was_missing) = (epoch.delivered.insert(seq), epoch.missing.remove(&seq));
            epoch.passed_over.remove(&seq);
            for passed in epoch.next..seq {
                epoch.passed_over.insert(passed, tick);
            }
            epoch.next = epoch.next.max(seq + 1);
            epoch.known = epoch.known.max(seq + 1);
            self.repeated += u64::from(!new);
            self.recovered += u64::from(was_missing);
        }
        for older in self.producers.entry(producer.to_string()).or_default().iter_mut().filter(|e| e.number < number) {
            for passed in older.next..older.known {
                older.passed_over.insert(passed, tick);
            }
            older.next = older.next.max(older.known);
        }
    }

    fn age(&mut self, tick: i64, grace_s: i64) {
        for epoch in self.producers.values_mut().flatten() {
            let old: Vec<u64> = epoch.passed_over.iter().filter(|p| p.1 + grace_s <= tick).map(|p| *p.0).collect();
            for seq in old {
                epoch.passed_over.remove(&seq);
                epoch.missing.insert(seq);
                self.gaps += 1;
            }
        }
    }

    fn shown(&self) -> Shown {
        let (mut backlog, mut missing) = (0, 0);
        for epoch in self.producers.values().flatten() {
            let frontier = epoch.passed_over.keys().next().copied().unwrap_or(epoch.next);
            backlog += epoch.known - frontier;
            missing += epoch.missing.len() as u64;
        }
        [backlog, missing, self.gaps, self.recovered, self.repeated, self.epochs, self.untracked, self.skewed]
    }
}
