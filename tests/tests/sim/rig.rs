//! The core under test: workers and keeper as the program wires them, one thread, model time, model disk.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};

use fastrand::Rng;
use larum::config::shipped;
use larum::durable::{Durable, resume};
use larum::keeper::{Committed, Keeper, Round, WorkerCut};
use larum::shared::{PartShared, SourceShared};
use larum_aggregate::{Delta, Graces, PartitionId, PartitionStart, SourceDef, SourceId};
use larum_event::Limits;
use larum_fold::{Budgets, DeadLetters, PartStatus, Record, Registry, SourcePolicy, Worker, no_header};
use larum_store::{Builder, Store, StoreLimits, configure};

use larum_tests::recount::{Body, Partition, S, Totals, random};

use super::disk::ModelDisk;
use checks::same;

/// Something done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What was visible last is not on the disk.
    VisibleBeforeDurable,
    /// The last commit comes back with its offsets and without its aggregates.
    OffsetBeforeDelta,
    /// The last commit is applied twice.
    AppliedTwice,
    /// The last commit comes back without its dead letters.
    LetterLost,
}

const SOURCE: SourceId = SourceId(0);
const LETTERS: DeadLetters = DeadLetters::Keep { record_bytes_max: 1000 };

struct SimWorker {
    worker: Worker,
    /// Partition of each slot.
    parts: Vec<usize>,
}

/// The whole system.
pub struct Rig {
    rng: Rng,
    fault: Option<Fault>,
    now_ns: i64,
    log: Vec<Partition>,
    /// Last reported end of each partition and when.
    ends: Vec<Option<(i64, i64)>>,
    /// Partitions whose broker is silent until then.
    stuck_until_ns: Vec<i64>,
    /// What the program's readers see of the clock and of each other, made anew at every start.
    source: SourceShared,
    parts: Vec<Arc<PartShared>>,
    /// Partitions that run too far ahead and are not read.
    held: Vec<bool>,
    /// How often one was held.
    pub holds: u64,
    /// What audit queues showed, added up.
    pub audited: larum_tests::audit::Shown,
    policy: SourcePolicy,
    minted: bool,
    disk: ModelDisk,
    workers: Vec<SimWorker>,
    keeper: Keeper,
    durable: Arc<RwLock<Durable>>,
    delivered: BTreeSet<(PartitionId, i64)>,
    to_deliver: Vec<(PartitionId, i64)>,
    /// What scrapes keep from one to the next.
    scraped: Mutex<larum_view::Shown>,
    /// Totals and offsets that were visible last.
    seen: (Totals, Vec<i64>),
    commits: u64,
}

fn open(disk: &ModelDisk) -> (Store, larum_store::Recovered) {
    let disk = disk.clone();
    let opener =
        Box::new(move || configure(&mut Builder::new()).set_cache_size(1 << 20).create_with_backend(disk.clone()));
    let limits = StoreLimits { log_bytes_max: 5_000, snapshot_chunks_per_commit: 1 };
    Store::open_with(opener, "model disk", limits).unwrap()
}

impl Rig {
    /// A rig whose every decision follows from `seed`.
    pub fn new(seed: u64, fault: Option<Fault>) -> Rig {
        let mut rng = Rng::with_seed(seed);
        let partitions = rng.usize(1..4);
        let disk = ModelDisk::default();
        let (store, _) = open(&disk);
        let durable = Arc::new(RwLock::new(Durable::default()));
        let minted = seed % 5 == 4;
        let registry = Arc::new(Registry::new(budgets(minted), (1, 2), &[], &[], (0, 0)));
        let now_ns = 1_773_480_000 * S + rng.i64(0..1000) * S / 7;
        let keeper = Keeper::new(store, b"model".to_vec(), durable.clone(), registry.clone(), shipped(), now_ns);
        let policy = SourcePolicy { delay_s: if rng.bool() { 0 } else { rng.u32(..120) }, ..SourcePolicy::default() };
        let mut rig = Rig {
            log: vec![Partition::default(); partitions],
            ends: vec![None; partitions],
            stuck_until_ns: vec![0; partitions],
            source: SourceShared::new(SOURCE),
            parts: Vec::new(),
            held: Vec::new(),
            holds: 0,
            audited: Default::default(),
            scraped: Mutex::default(),
            seen: (Totals::new(), vec![0; partitions]),
            rng,
            fault,
            now_ns,
            policy,
            minted,
            disk,
            workers: Vec::new(),
            keeper,
            durable,
            delivered: BTreeSet::new(),
            to_deliver: Vec::new(),
            commits: 0,
        };
        rig.first_start();
        rig.assign(registry);
        rig
    }

    /// Sometimes there is history: warm-up begins at `start`, totals at `origin`.
    fn first_start(&mut self) {
        if self.rng.bool() {
            self.fill(60);
        }
        let mut round = Round { now_ns: self.now_ns, ..Round::default() };
        let (name, topics) = ("model".into(), vec!["t".into()]);
        round.new_sources =
            vec![SourceDef { id: SOURCE, name, delay_s: self.policy.delay_s, topics, grace: Graces::default() }];
        for (at, partition) in self.log.iter_mut().enumerate() {
            partition.origin = self.rng.i64(0..=partition.end());
            partition.start = self.rng.i64(0..=partition.origin);
            let start = PartitionStart::from_birth(PartitionId(at as u32), SOURCE, "t", at as i32);
            let (start, origin) = (PartitionStart { start: partition.start, ..start }, partition.origin);
            round.new_partitions.push(PartitionStart { origin, ..start });
        }
        self.keeper.commit(round).unwrap();
        self.seen.1 = self.log.iter().map(|p| p.start).collect();
    }

    /// Appends records without anybody reading.
    pub fn fill(&mut self, records: usize) {
        for _ in 0..records {
            self.now_ns += self.rng.i64(0..400) * 1_000_000;
            let at = self.rng.usize(..self.log.len());
            let record = random(&mut self.rng, self.now_ns, self.minted);
            self.log[at].records.push(record);
        }
    }

    /// Appends backlogs that begin and end minutes of event time apart.
    pub fn fill_unevenly(&mut self, records: usize) {
        let began_ns = self.now_ns;
        let mut last_ns = began_ns;
        for at in 0..self.log.len() {
            let mut now_ns = began_ns + self.rng.i64(0..1800) * S;
            let pace_ms = [50, 400, 4_000][self.rng.usize(..3)];
            for _ in 0..records {
                now_ns += self.rng.i64(0..pace_ms) * 1_000_000;
                let record = random(&mut self.rng, now_ns, self.minted);
                self.log[at].records.push(record);
            }
            last_ns = last_ns.max(now_ns);
        }
        self.now_ns = last_ns + S;
    }

    /// Reads, commits and crashes until the backlogs are read, and compares with the recount all the way.
    pub fn catch_up(&mut self) -> Result<(), String> {
        for _ in 0..200 {
            self.now_ns += S / 10;
            match self.rng.u8(..20) {
                0..12 => self.read(),
                12..14 => self.report_ends(),
                14..19 => self.commit()?,
                _ => self.crash()?,
            }
        }
        self.finish()
    }

    /// New workers share the partitions in some way.
    fn assign(&mut self, registry: Arc<Registry>) {
        let count = self.rng.usize(1..4);
        let new = || SimWorker { worker: Worker::new(registry.clone(), Limits::default(), 1), parts: Vec::new() };
        self.workers = (0..count).map(|_| new()).collect();
        self.source = SourceShared::new(SOURCE);
        let part = |at| Arc::new(PartShared::new(PartitionId(at as u32), SOURCE, "t", at as i32));
        self.parts = (0..self.log.len()).map(part).collect();
        self.parts.iter().for_each(|part| self.source.add(part.clone()));
        self.held = vec![false; self.log.len()];
        let durable = self.durable.read().unwrap();
        for view in durable.view.partitions() {
            let worker = &mut self.workers[self.rng.usize(..count)];
            worker.worker.add(resume(view), self.policy.clone());
            worker.parts.push(view.start.id.0 as usize);
        }
    }

    /// Does something.
    pub fn step(&mut self) -> Result<(), String> {
        match self.rng.u8(..100) {
            0..30 => {
                let records = self.rng.usize(1..25);
                self.fill(records);
            }
            30..60 => self.read(),
            60..70 => self.report_ends(),
            70..88 => return self.commit(),
            88..92 => return self.crash(),
            92..95 => {
                // It dies somewhere within a commit.
                self.disk.fail_after(Some(self.rng.u64(..60)));
                self.round().ok();
                return self.crash();
            }
            95..97 => return self.full_disk(),
            97 => self.now_ns += self.rng.i64(1..200) * S,
            98 => {
                let at = self.rng.usize(..self.log.len());
                self.stuck_until_ns[at] = self.now_ns + self.rng.i64(1..60) * S;
            }
            _ => self.now_ns += self.rng.i64(0..8) * 3600 * S,
        }
        Ok(())
    }

    /// Some worker reads some of some partition, now and then from before where it stands.
    fn read(&mut self) {
        let worker = self.rng.usize(..self.workers.len());
        if self.workers[worker].parts.is_empty() {
            return;
        }
        let slot = self.rng.usize(..self.workers[worker].parts.len());
        let records = self.rng.i64(1..60);
        self.read_some(worker, slot, records);
    }

    /// As the program's readers do: says how the partition stands, and holds it if it runs ahead.
    fn is_held(&mut self, worker: usize, slot: usize) -> bool {
        let (at, live) = (self.workers[worker].parts[slot], self.is_live(worker, slot));
        let watermark_ns = self.workers[worker].worker.state(slot).watermark_ns;
        self.parts[at].progress(watermark_ns, !live);
        let held = self.source.holds(watermark_ns, self.held[at]);
        self.holds += u64::from(held && !self.held[at]);
        self.held[at] = held;
        held
    }

    fn is_live(&self, worker: usize, slot: usize) -> bool {
        let SimWorker { worker, parts } = &self.workers[worker];
        let at = parts[slot];
        let reached = |(end, asked_ns)| worker.state(slot).next >= end && self.now_ns - asked_ns <= 2 * S;
        self.ends[at].is_some_and(reached) && !self.held[at]
    }

    fn read_some(&mut self, worker: usize, slot: usize, records: i64) {
        if self.is_held(worker, slot) {
            return;
        }
        let SimWorker { worker, parts } = &mut self.workers[worker];
        let at = parts[slot];
        if self.stuck_until_ns[at] > self.now_ns {
            return;
        }
        let partition = &self.log[at];
        let next = worker.state(slot).next;
        let from = if self.rng.u8(..) < 20 { (next - 5).max(partition.start) } else { next };
        let to = (from + records).min(partition.end());
        for offset in from..to {
            let rec = partition.at(offset);
            let value = match rec.body {
                Body::Absent => continue,
                Body::Tombstone => None,
                _ => Some(rec.bytes.as_slice()),
            };
            worker.record(
                slot,
                Record { offset, append_ns: rec.append_ns, value, traceparent: &no_header },
                self.now_ns,
                LETTERS,
            );
        }
        if to == partition.end() {
            worker.pass(slot, to);
        }
    }

    fn report_ends(&mut self) {
        for (at, partition) in self.log.iter().enumerate() {
            if self.stuck_until_ns[at] <= self.now_ns {
                self.ends[at] = Some((partition.end(), self.now_ns));
            }
        }
    }

    fn cuts(&mut self) -> Vec<WorkerCut> {
        let mut cuts = Vec::new();
        for of in 0..self.workers.len() {
            let mut statuses = Vec::new();
            for slot in 0..self.workers[of].parts.len() {
                let (held, live) = (self.is_held(of, slot), self.is_live(of, slot));
                let SimWorker { worker, parts } = &mut self.workers[of];
                if live {
                    worker.live(slot, self.now_ns);
                }
                let (id, watermark_ns) = (PartitionId(parts[slot] as u32), worker.state(slot).watermark_ns);
                statuses.push((SOURCE, PartStatus { id, watermark_ns, live, held }));
            }
            let spare = self.keeper.take_spare();
            cuts.push(WorkerCut { cut: self.workers[of].worker.cut(false, spare), statuses });
        }
        cuts
    }

    fn round(&mut self) -> Result<Committed, larum_store::StoreError> {
        let cuts = self.cuts();
        let delivered = std::mem::take(&mut self.to_deliver);
        let round = Round { now_ns: self.now_ns, cuts, delivered, ..Round::default() };
        let committed = self.keeper.commit(round);
        let clock = self.keeper.clock(SOURCE);
        self.source.set_clock(clock.and_then(|c| c.clock_ns()));
        self.parts.iter().for_each(|part| part.set_left_out(clock.is_some_and(|c| c.is_left_out(part.id))));
        committed
    }

    fn commit(&mut self) -> Result<(), String> {
        let tick_before = self.tick();
        self.round().map_err(|error| format!("commit: {error}"))?;
        self.commits += 1;
        self.deliver_some();
        self.check(self.commits.is_multiple_of(8), tick_before != self.tick())
    }

    /// The dead-letter topic takes some letters; one may be taken twice.
    fn deliver_some(&mut self) {
        let durable = self.durable.read().unwrap();
        for letter in durable.outbox.letters() {
            if self.rng.bool() {
                let rec = self.log[letter.partition.0 as usize].at(letter.offset);
                assert_eq!(letter.payload, rec.bytes, "a dead letter keeps its bytes");
                self.delivered.insert((letter.partition, letter.offset));
                self.to_deliver.push((letter.partition, letter.offset));
            }
        }
    }

    fn full_disk(&mut self) -> Result<(), String> {
        self.disk.set_full(true);
        let first = self.round();
        for _ in 0..self.rng.u8(..3) {
            if self.keeper.is_stalled() && self.keeper.retry().is_ok() {
                return Err("a full disk took a commit".into());
            }
        }
        self.disk.set_full(false);
        if let Err(error) = first {
            if !error.is_temporary() {
                return Err(format!("a full disk is no damage: {error}"));
            }
            self.check(false, false)?;
            self.keeper.retry().map_err(|error| format!("space returned, but: {error}"))?;
        }
        self.check(true, false)
    }

    /// Everything in memory is gone; the disk keeps what it keeps.
    fn crash(&mut self) -> Result<(), String> {
        self.disk = self.disk.crash(&mut self.rng);
        let (store, mut recovered) = open(&self.disk);
        self.spoil(&mut recovered.commits);
        let durable = Durable::recover(recovered.snapshot.as_deref(), &recovered.commits, &shipped());
        let durable = durable.map_err(|error| format!("recovery: {error}"))?;
        self.check_alerts(&durable)?;
        let (names, keys): (Vec<_>, Vec<_>) =
            (durable.view.names().cloned().collect(), durable.view.keys().map(|k| k.def).collect());
        let registry = Registry::new(budgets(self.minted), (1, 2), &names, &keys, durable.view.next_ids());
        let registry = Arc::new(registry);
        self.durable = Arc::new(RwLock::new(durable));
        let identity = recovered.identity.unwrap_or_default();
        self.keeper = Keeper::new(store, identity, self.durable.clone(), registry.clone(), shipped(), self.now_ns);
        self.to_deliver.clear();
        self.assign(registry);
        self.check(true, false)
    }

    /// A restart neither resolves nor fires anything: where it goes on from the tick that was visible, from its alerts too.
    fn check_alerts(&self, recovered: &Durable) -> Result<(), String> {
        let before = self.durable.read().unwrap();
        let tick = |durable: &Durable| durable.view.source(SOURCE).and_then(|source| source.tick);
        if self.fault.is_none() && tick(&before) == tick(recovered) {
            same("alerts", &recovered.alerts, &before.alerts)?;
        }
        Ok(())
    }

    /// The deliberate faults that happen at recovery.
    fn spoil(&self, commits: &mut Vec<Vec<u8>>) {
        let Some(last) = commits.last().cloned() else { return };
        let mut delta = Delta::decode(&last).unwrap();
        match self.fault {
            Some(Fault::OffsetBeforeDelta) => delta.groups.clear(),
            Some(Fault::LetterLost) => delta.dead_letters.clear(),
            Some(Fault::AppliedTwice) => return commits.push(last),
            Some(Fault::VisibleBeforeDurable) => return drop(commits.pop()),
            _ => return,
        }
        let at = commits.len() - 1;
        commits[at] = delta.encode();
    }

    fn tick(&self) -> Option<u32> {
        self.durable.read().unwrap().view.source(SOURCE).and_then(|s| s.tick)
    }

    /// Reads everything, waits, and compares for the last time.
    pub fn finish(&mut self) -> Result<(), String> {
        self.crash()?;
        for _ in 0..400 {
            self.now_ns += S / 2;
            self.stuck_until_ns.fill(0);
            for worker in 0..self.workers.len() {
                for slot in 0..self.workers[worker].parts.len() {
                    self.read_some(worker, slot, 500);
                }
            }
            self.report_ends();
            self.commit()?;
            if self.log.iter().zip(&self.seen.1).all(|(p, next)| p.end() == *next) {
                break;
            }
        }
        same("visible", self.seen.1.clone(), self.log.iter().map(Partition::end).collect())?;
        self.check(true, true)?;
        let durable = self.durable.read().unwrap();
        let kept: BTreeSet<_> = durable.outbox.letters().map(|l| (l.partition, l.offset)).collect();
        for (at, partition) in self.log.iter().enumerate() {
            for offset in partition.origin..partition.end() {
                let place = (PartitionId(at as u32), offset);
                let bad = matches!(partition.at(offset).body, Body::Bad(_));
                if bad != (kept.contains(&place) || self.delivered.contains(&place)) {
                    return Err(format!("dead letter of {place:?}: expected {bad}"));
                }
            }
        }
        same("violations", durable.view.tiling_violations, 0)
    }

    /// Nobody is ever live and no time passes: ticks follow from the log alone.
    pub fn read_from_behind(&mut self) -> Result<(), String> {
        let ticks: Vec<BTreeMap<i64, i64>> = self.log.iter().map(ends_of_ticks).collect();
        for _ in 0..150 {
            match self.rng.u8(..10) {
                0..6 => self.read(),
                6..9 => self.commit()?,
                _ => self.crash()?,
            }
            let Some(tick) = self.tick() else { continue };
            for (at, ends) in ticks.iter().enumerate() {
                let want = ends.range(..=i64::from(tick)).next_back().map_or(self.log[at].start, |e| *e.1);
                same(&format!("end of tick {tick} in partition {at}"), self.seen.1[at], want)?;
            }
            self.check_audit(tick)?;
        }
        Ok(())
    }
}

/// Where each tick ends.
fn ends_of_ticks(partition: &Partition) -> BTreeMap<i64, i64> {
    partition.judge().into_iter().map(|(offset, judged)| (judged.tick, offset + 1)).collect()
}

fn budgets(minted: bool) -> Budgets {
    Budgets { tenants: if minted { 12 } else { 1000 }, ..Budgets::default() }
}
