//! Traffic through the whole pipeline on a clock of its own: events, workers, Deltas, ticks, alerts; no broker, no disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use larum::durable::Durable;
use larum_aggregate::{
    Delta, Graces, PartitionId, PartitionStart, SourceCut, SourceDef, SourceId, seal, seal_sequences, seal_sightings,
};
use larum_alert::{Became, Catalogue, Texts};
use larum_event::Limits;
use larum_fold::{Budgets, DeadLetters, PartitionState, Record, Registry, SourcePolicy, Worker, no_header};
use larum_load::{Generator, Planned, Profile, Scenario};

/// A second, ns.
pub const S: i64 = 1_000_000_000;
const SOURCE: SourceId = SourceId(0);

/// One partition and what Larum makes of it.
pub struct Pipeline {
    worker: Worker,
    /// What is durable.
    pub durable: Durable,
    catalogue: Arc<Catalogue>,
    offset: i64,
    /// Every Delta, where they are kept.
    pub deltas: Option<Vec<Vec<u8>>>,
}

impl Pipeline {
    /// With nothing in it.
    pub fn new(catalogue: Arc<Catalogue>) -> Pipeline {
        Pipeline::made(catalogue, None)
    }

    /// The same; keeps every Delta.
    pub fn recording(catalogue: Arc<Catalogue>) -> Pipeline {
        Pipeline::made(catalogue, Some(Vec::new()))
    }

    fn made(catalogue: Arc<Catalogue>, deltas: Option<Vec<Vec<u8>>>) -> Pipeline {
        let budgets = Budgets { tenants: 20_000, keys: 200_000, ..Budgets::default() };
        let registry = Arc::new(Registry::new(budgets, (1, 2), &[], &[], (0, 0)));
        let mut worker = Worker::new(registry, Limits::default(), 1);
        let start = PartitionStart::from_birth(PartitionId(0), SOURCE, "auth-events", 0);
        worker.add(PartitionState::new(start.clone()), SourcePolicy::default());
        let (name, topics) = ("auth".to_string(), vec!["auth-events".to_string()]);
        let def = SourceDef { id: SOURCE, name, delay_s: 0, topics, grace: Graces::default() };
        let mut pipeline = Pipeline { worker, durable: Durable::default(), catalogue, offset: 0, deltas };
        pipeline.apply(Delta { new_sources: vec![def], new_partitions: vec![start], ..Delta::default() });
        pipeline
    }

    /// Reads a record as it arrives.
    pub fn record(&mut self, value: &[u8], append_ns: i64) {
        let record = Record { offset: self.offset, append_ns, value: Some(value), traceparent: &no_header };
        self.worker.record(0, record, append_ns, DeadLetters::Count);
        self.offset += 1;
    }

    fn apply(&mut self, delta: Delta) {
        if let Some(deltas) = &mut self.deltas {
            deltas.push(delta.encode());
        }
        self.durable.apply(delta, &self.catalogue);
    }

    /// Commits what was read; the clock stands at `clock_ns`, or at the watermark.
    pub fn commit(&mut self, clock_ns: Option<i64>) {
        let mut cut = self.worker.cut(false, Vec::new());
        let clock_ns = clock_ns.or(self.worker.state(0).watermark_ns);
        let mut delta = Delta {
            names: cut.names,
            keys: cut.keys,
            parts: cut.parts,
            sources: vec![SourceCut { id: SOURCE, clock_ns, paced_ns: 0, arrived_ns: 0, left_out: Vec::new() }],
            ..Delta::default()
        };
        for counted in &mut cut.counted {
            delta.groups.extend(seal(SOURCE, &mut counted.entries));
            delta.sightings.extend(seal_sightings(SOURCE, &mut counted.sightings));
            delta.sequences.extend(seal_sequences(SOURCE, &mut counted.numbers));
            delta.changes.append(&mut counted.changes);
            delta.exemplars.extend(counted.exemplars.take());
            delta.samples.extend(counted.samples.take());
        }
        self.apply(delta);
    }
}

/// What became of an alert: when, in seconds from the beginning, and for whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Seconds from the beginning.
    pub at_s: i64,
    /// Its name.
    pub alert: String,
    /// What became of it.
    pub became: Became,
    /// For whom.
    pub texts: Texts,
    /// Tenants that it stands for.
    pub tenants: u32,
}

/// More records than the generator's: those of a second from the beginning.
pub type Extra<'e> = &'e dyn Fn(i64) -> Vec<String>;

/// Nothing more.
pub fn nothing(_: i64) -> Vec<String> {
    Vec::new()
}

/// A profile of modest traffic with one scenario.
pub fn profile(rate: f64, scenario: Option<(Scenario, f64, f64)>) -> Profile {
    let planned = |(scenario, start_s, duration_s)| Planned { scenario, start_s, duration_s };
    Profile {
        seed: 11,
        tenants: 12,
        regions: 2,
        events_per_second: rate,
        scenarios: scenario.map(planned).into_iter().collect(),
        ..Profile::default()
    }
}

/// Runs a profile for so long and gives all that became of alerts.
pub fn run(profile: &Profile, length_s: i64, extra: Extra<'_>, catalogue: Arc<Catalogue>) -> Vec<Event> {
    let mut pipeline = Pipeline::new(catalogue);
    let mut events = Vec::new();
    let mut seen = 0;
    drive(profile, length_s, extra, &mut pipeline, &mut |pipeline| {
        let alerts = &pipeline.durable.alerts;
        for transition in alerts.transitions.iter().filter(|transition| transition.number >= seen) {
            events.push(Event {
                at_s: i64::from(transition.at_s) - profile.start_ns / S,
                alert: transition.alert.clone(),
                became: transition.became,
                texts: transition.instance.texts.clone(),
                tenants: transition.instance.tenants,
            });
        }
        seen = alerts.next_number();
    });
    events
}

/// Feeds a profile into a pipeline, a commit a second, live.
pub fn drive(
    profile: &Profile,
    length_s: i64,
    extra: Extra<'_>,
    pipeline: &mut Pipeline,
    committed: &mut dyn FnMut(&Pipeline),
) {
    let mut generator = Generator::new(profile.clone()).unwrap();
    let mut second = 0;
    while second < length_s {
        let (bytes, due_ns) = {
            let record = generator.next_record();
            (record.bytes.to_vec(), record.due_ns)
        };
        while second < length_s && due_ns >= profile.start_ns + (second + 1) * S {
            for json in extra(second) {
                pipeline.record(json.as_bytes(), profile.start_ns + (second + 1) * S - 1);
            }
            second += 1;
            // Where nothing comes the clock goes on by the wall clock, a second later.
            pipeline.commit(Some(profile.start_ns + (second - 1) * S));
            committed(pipeline);
        }
        pipeline.record(&bytes, due_ns);
    }
}

/// How an alert is made to fire.
pub struct Drill {
    /// Its name.
    pub alert: &'static str,
    /// What is sent.
    pub profile: Profile,
    /// From when to when it is bad, seconds from the beginning.
    pub bad_s: (i64, i64),
    /// It has to fire so soon, seconds.
    pub within_s: i64,
    /// It has to be over so soon, seconds.
    pub over_s: i64,
    /// What comes near, and what is sent besides.
    pub near: (Profile, fn(i64) -> Vec<String>),
    /// By what it is judged.
    pub catalogue: Arc<Catalogue>,
}

impl Drill {
    /// Runs it: the alert fires in time, and not before; it is over in time; what comes near leaves it silent.
    pub fn run(&self) {
        let events = run(&self.profile, self.bad_s.1 + self.over_s + 60, &nothing, self.catalogue.clone());
        let of_it: Vec<&Event> = events.iter().filter(|event| event.alert == self.alert).collect();
        let others: BTreeMap<&str, i64> =
            events.iter().rev().filter(|e| e.alert != self.alert).map(|e| (e.alert.as_str(), e.at_s)).collect();
        let fired = of_it.iter().find(|event| event.became == Became::Firing);
        let Some(fired) = fired else { panic!("{} did not fire; others: {others:?}", self.alert) };
        let over = of_it.iter().rev().find(|event| event.became == Became::Resolved);
        let Some(over) = over else { panic!("{} is not over: {of_it:?}", self.alert) };
        println!(
            "{}: fires {} s after the cause, over {} s after its end; also {others:?}",
            self.alert,
            fired.at_s - self.bad_s.0,
            over.at_s - self.bad_s.1
        );
        assert!(fired.at_s >= self.bad_s.0, "{} fired before: {fired:?}", self.alert);
        assert!(fired.at_s <= self.bad_s.0 + self.within_s, "{} fired late: {fired:?}", self.alert);
        assert!(over.at_s <= self.bad_s.1 + self.over_s, "{} was over late: {over:?}", self.alert);
        let begun = of_it.iter().filter(|event| event.became == Became::Firing).count();
        let ended = of_it.iter().filter(|event| event.became == Became::Resolved).count();
        assert_eq!(begun, ended, "{} goes on: {of_it:?}", self.alert);
        let (near, extra) = &self.near;
        let events = run(near, self.bad_s.1 + self.over_s, extra, self.catalogue.clone());
        let of_it: Vec<&Event> = events.iter().filter(|event| event.alert == self.alert).collect();
        assert!(of_it.is_empty(), "{} is not silent where something comes near: {of_it:?}", self.alert);
    }
}
