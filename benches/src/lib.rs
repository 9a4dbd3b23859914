//! Shared parts of the benches: clocks, medians, the reference load, the program as a child.
#![allow(clippy::disallowed_methods, reason = "benches measure time")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larum_aggregate::time::{WINDOWS, Window};
use larum_aggregate::{
    Delta, Graces, PartitionId, PartitionStart, SourceCut, SourceDef, SourceId, seal, seal_sightings,
};
use larum_event::Limits;
use larum_fold::{Budgets, Counted, DeadLetters, PartitionState, Record, Registry, SourcePolicy, Worker, no_header};
use larum_load::{Generator, Profile};
use larum_view::{Exemplars, Exposure, Helpers, Reading, Shown, Sink, TickRead, TickWatcher, View};

/// Interleaved repetitions of the in-memory benches.
pub const REPETITIONS: usize = 9;

/// The reference load: 10,000 tenants by Zipf 1.05, 12 regions, one well-formed JSON event a record, about 400 B each,
/// 70 % RFC 3339 Z, 10 % with offset, 20 % epoch ms, 4 key orders, 5 % with blanks, some escapes.
pub fn reference_profile() -> Profile {
    Profile {
        seed: 1,
        tenants: 10_000,
        regions: 12,
        zipf: 1.05,
        events_per_second: 20_000.0,
        malformed_share: 0.0,
        ..Profile::default()
    }
}

/// So many records of the reference load with their append times, Unix ns.
///
/// # Errors
/// The profile is out of range.
pub fn reference_load(records: usize) -> anyhow::Result<Vec<(Vec<u8>, i64)>> {
    let mut generator = Generator::new(reference_profile())?;
    let mut load = Vec::with_capacity(records);
    for _ in 0..records {
        let record = generator.next_record();
        load.push((record.bytes.to_vec(), record.due_ns));
    }
    Ok(load)
}

/// A registry with room for the reference load.
pub fn registry() -> Arc<Registry> {
    let budgets = Budgets { tenants: 100_000, keys: 1_000_000, ..Budgets::default() };
    Arc::new(Registry::new(budgets, (1, 2), &[], &[], (0, 0)))
}

/// A worker with one partition of its own, in slot 0.
pub fn worker(registry: &Arc<Registry>) -> Worker {
    let mut worker = Worker::new(registry.clone(), Limits::default(), 1);
    let start = PartitionStart::from_birth(PartitionId(0), SourceId(0), "t", 0);
    worker.add(PartitionState::new(start), SourcePolicy::default());
    worker
}

/// A worker and the view of its Deltas, in memory.
pub struct Pipeline {
    /// Reads one partition.
    pub worker: Worker,
    /// What was committed.
    pub view: View,
    /// Traces of single requests.
    pub exemplars: Exemplars,
    offset: i64,
    spare: Vec<Counted>,
}

impl Default for Pipeline {
    fn default() -> Self {
        let (worker, mut view) = (worker(&registry()), View::default());
        let (name, topics) = ("auth".to_string(), vec!["t".to_string()]);
        let def = SourceDef { id: SourceId(0), name, delay_s: 0, topics, grace: Graces::default() };
        let start = worker.state(0).start.clone();
        view.apply(Delta { new_sources: vec![def], new_partitions: vec![start], ..Delta::default() });
        Pipeline { worker, view, exemplars: Exemplars::default(), offset: 0, spare: Vec::new() }
    }
}

impl Pipeline {
    /// Reads a record as it arrives.
    pub fn record(&mut self, value: &[u8], append_ns: i64) {
        let record = Record { offset: self.offset, append_ns, value: Some(value), traceparent: &no_header };
        self.worker.record(0, record, append_ns, DeadLetters::Count);
        self.offset += 1;
    }

    /// Commits what was read; the clock stands at the watermark.
    pub fn commit(&mut self) {
        struct Nobody;
        impl TickWatcher for Nobody {
            fn tick(&mut self, _: &TickRead<'_>) {}
        }
        self.commit_watched(&mut Nobody);
    }

    /// The same, watched; says how long applying it took.
    #[allow(clippy::disallowed_methods)]
    pub fn commit_watched(&mut self, watcher: &mut impl TickWatcher) -> Duration {
        let id = SourceId(0);
        let mut cut = self.worker.cut(false, std::mem::take(&mut self.spare));
        let groups = cut.counted.iter_mut().flat_map(|counted| seal(id, &mut counted.entries)).collect();
        let sightings = cut.counted.iter_mut().flat_map(|counted| seal_sightings(id, &mut counted.sightings)).collect();
        let exemplars = cut.counted.iter_mut().flat_map(|counted| counted.exemplars.take()).collect();
        self.exemplars.wait(exemplars, &self.view);
        let clock_ns = self.worker.state(0).watermark_ns;
        let sources = vec![SourceCut { id, clock_ns, paced_ns: 0, arrived_ns: 0, left_out: Vec::new() }];
        let (names, keys, parts) = (cut.names, cut.keys, cut.parts);
        let delta = Delta { names, keys, parts, groups, sightings, sources, ..Delta::default() };
        let began = Instant::now();
        self.view.apply_watched(delta, watcher);
        let took = began.elapsed();
        self.exemplars.show(&self.view);
        self.spare = cut.counted;
        took
    }
}

/// So many of the reference load's tenants have about 100,000 sample lines, shown in full.
const TENANTS: usize = 26;
/// More lines than there are.
const LINES_MAX: u64 = 1_000_000;
/// Event time of their state, seconds.
const SECONDS: usize = 60;

/// A state of about 100,000 sample lines, and the load that goes on.
pub struct Saturated {
    /// The state.
    pub pipeline: Pipeline,
    /// Time of its last record, Unix ns.
    pub now_ns: i64,
    generator: Generator,
    per_second: usize,
    /// What scrapes keep from one to the next.
    shown: Shown,
    exposure: Exposure,
    helpers: Option<Helpers>,
}

/// Windows that are shown.
const SHOWN: [Window; 2] = [WINDOWS[1], WINDOWS[3]];

impl Saturated {
    /// Another second of load.
    pub fn go_on(&mut self) {
        for _ in 0..self.per_second {
            let record = self.generator.next_record();
            self.now_ns = record.due_ns;
            self.pipeline.record(record.bytes, self.now_ns);
        }
        self.pipeline.commit();
    }

    /// Shows all there is, a part of it in each sink.
    pub fn visit<S: Sink + Send>(&mut self, sinks: &mut [S]) {
        let Saturated { pipeline: Pipeline { view, exemplars, .. }, now_ns, shown, exposure, helpers, .. } = self;
        Reading { view, exemplars, now_ns: *now_ns, windows: &SHOWN, exposure, helpers: helpers.as_ref() }
            .visit(shown, sinks);
    }
}

/// A state of about 100,000 sample lines as the reference load mixes families.
///
/// # Errors
/// The profile is out of range.
pub fn saturated() -> anyhow::Result<Saturated> {
    let profile = Profile { tenants: TENANTS, ..reference_profile() };
    let per_second = profile.events_per_second as usize;
    let mut generator = Generator::new(profile)?;
    let (mut pipeline, mut now_ns) = (Pipeline::default(), 0);
    for _ in 0..SECONDS * per_second {
        let record = generator.next_record();
        now_ns = record.due_ns;
        pipeline.record(record.bytes, now_ns);
    }
    pipeline.commit();
    let exposure = Exposure::plan(&pipeline.view, &SHOWN, LINES_MAX, &Exposure::default());
    Ok(Saturated {
        pipeline,
        now_ns,
        generator,
        per_second,
        shown: Shown::default(),
        exposure,
        helpers: larum_export::helpers(),
    })
}

/// How long `work` takes.
pub fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = work();
    (began.elapsed(), result)
}

/// Now, for benches with a story of their own.
pub fn now() -> Instant {
    Instant::now()
}

/// Median of some figures: of an even number the middle of both that stand there.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    sorted.get(low).zip(sorted.get(high)).map_or(f64::NAN, |(low, high)| (low + high) / 2.0)
}

/// Least of some figures.
pub fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Where the `larum` program is; `benches/bar` builds it.
///
/// # Errors
/// It is not there.
pub fn larum() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("LARUM_BIN").map(PathBuf::from);
    let path = path.unwrap_or_else(|| "target/release/larum".into());
    anyhow::ensure!(path.exists(), "{} is missing: run benches/bar, which builds it", path.display());
    Ok(path)
}

/// A page of a running program, if it answers.
pub fn page(port: u16, path: &str) -> Option<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let mut answer = agent.get(format!("http://127.0.0.1:{port}{path}")).call().ok()?;
    let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().ok()?;
    Some((answer.status().as_u16(), text))
}
