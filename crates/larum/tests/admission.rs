//! Slots of names through commits: a name that no window holds frees its slot, and returns at 0; restarts keep ids.

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, RwLock};

use larum::durable::{Durable, resume};
use larum::keeper::{Keeper, Round, WorkerCut};
use larum_aggregate::time::SECOND_NS;
use larum_aggregate::{Graces, NameKind, PartitionId, PartitionStart, SourceDef, SourceId};
use larum_event::Limits;
use larum_fold::{Budgets, DeadLetters, PartStatus, Record, Registry, SourcePolicy, Worker, no_header};
use larum_store::{Store, StoreLimits};

const SOURCE: SourceId = SourceId(0);
const T: i64 = 1_773_480_000;

struct Rig {
    keeper: Keeper,
    durable: Arc<RwLock<Durable>>,
    registry: Arc<Registry>,
    worker: Worker,
    offset: i64,
}

impl Rig {
    fn new(dir: &std::path::Path, tenants: usize) -> Rig {
        Rig::with(dir, Budgets { tenants, ..Budgets::default() })
    }

    fn with(dir: &std::path::Path, budgets: Budgets) -> Rig {
        let (store, recovered) = Store::open(dir, StoreLimits::default()).unwrap();
        let durable = Durable::recover(recovered.snapshot.as_deref(), &recovered.commits, &Arc::default()).unwrap();
        let fresh = durable.view.sources().count() == 0;
        let names: Vec<_> = durable.view.names().cloned().collect();
        let keys: Vec<_> = durable.view.keys().map(|k| k.def).collect();
        let registry = Arc::new(Registry::new(budgets, (1, 2), &names, &keys, durable.view.next_ids()));
        let durable = Arc::new(RwLock::new(durable));
        let mut keeper =
            Keeper::new(store, Vec::new(), durable.clone(), registry.clone(), Arc::default(), T * SECOND_NS);
        if fresh {
            let start = PartitionStart::from_birth(PartitionId(0), SOURCE, "t", 0);
            let new_sources = vec![SourceDef {
                id: SOURCE,
                name: "s".into(),
                delay_s: 0,
                topics: vec!["t".into()],
                grace: Graces::default(),
            }];
            keeper.commit(Round { new_sources, new_partitions: vec![start], ..Round::default() }).unwrap();
        }
        let mut worker = Worker::new(registry.clone(), Limits::default(), 1);
        let state = resume(durable.read().unwrap().view.partition(PartitionId(0)).unwrap());
        let offset = state.next;
        worker.add(state, SourcePolicy::default());
        Rig { keeper, durable, registry, worker, offset }
    }

    fn login(&mut self, at_s: i64, tenant: &str, outcome: &str) {
        self.event(at_s, &format!(r#""kind":"login","tenant":"{tenant}","outcome":"{outcome}""#));
    }

    fn event(&mut self, at_s: i64, members: &str) {
        let json = format!(r#"{{"time":{at_s},{members}}}"#);
        let record = Record {
            offset: self.offset,
            append_ns: at_s * SECOND_NS,
            value: Some(json.as_bytes()),
            traceparent: &no_header,
        };
        self.worker.record(0, record, at_s * SECOND_NS, DeadLetters::Count);
        self.offset += 1;
    }

    fn commit(&mut self, now_s: i64) {
        let forget = self.keeper.announce_idle();
        let cut = self.worker.cut(forget, Vec::new());
        let watermark_ns = self.worker.state(0).watermark_ns;
        let status = PartStatus { id: PartitionId(0), watermark_ns, live: true, held: false };
        let cuts = vec![WorkerCut { cut, statuses: vec![(SOURCE, status)] }];
        self.keeper.commit(Round { now_ns: now_s * SECOND_NS, cuts, ..Round::default() }).unwrap();
    }

    fn total(&self, tenant: &str) -> Option<u64> {
        let durable = self.durable.read().unwrap();
        let mut total = None;
        durable.view.scan(&[], |counted| {
            if durable.view.name(counted.key.def.tenant) == tenant {
                total = Some(counted.counts.codes().map(|c| c.1).sum());
            }
        });
        total
    }
}

#[test]
fn a_name_that_no_window_holds_frees_its_slot_and_returns_at_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path(), 10);
    rig.login(T, "acme", "success");
    rig.login(T, "globex", "success");
    rig.commit(T);
    rig.login(T + 5, "globex", "success");
    rig.commit(T + 5);
    assert_eq!((rig.total("acme"), rig.registry.usage(NameKind::Tenant).held()), (Some(1), 2));
    // Ten hours later only globex is still seen; panes are swept within a minute of ticks.
    for s in 0..70 {
        rig.login(T + 36_000 + s, "globex", "success");
        rig.commit(T + 36_000 + s);
    }
    assert_eq!((rig.total("acme"), rig.registry.usage(NameKind::Tenant).held()), (None, 1));
    assert_eq!(rig.total("globex"), Some(71), "the last second's tick is not applied yet");
    rig.login(T + 36_100, "acme", "success");
    rig.commit(T + 36_100);
    rig.login(T + 36_102, "globex", "success");
    rig.commit(T + 36_102);
    assert_eq!(rig.total("acme"), Some(1), "it begins again at 0");
    drop(rig);
    let again = Rig::new(dir.path(), 10);
    assert_eq!((again.total("acme"), again.registry.usage(NameKind::Tenant).held()), (Some(1), 2));
}

#[test]
fn minted_names_count_exactly_under_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path(), 10);
    for n in 0..1_000 {
        rig.login(T, &format!("minted-{n}"), "failure");
    }
    rig.login(T, "customer", "success");
    rig.login(T + 5, "customer", "success");
    rig.commit(T + 5);
    assert_eq!(rig.total("__other__"), Some(995));
    assert_eq!(rig.total("customer"), Some(1));
    assert_eq!(rig.registry.usage(NameKind::Tenant).held(), 6);
}

/// While memory is full, what is new counts under `__other__`, and what is known goes on.
#[test]
fn a_closed_door_turns_no_event_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path(), 10);
    rig.login(T, "customer", "success");
    rig.registry.close(true);
    for n in 0..5 {
        rig.login(T, &format!("new-{n}"), "success");
        rig.login(T, "customer", "success");
    }
    rig.commit(T);
    rig.registry.close(false);
    rig.login(T + 5, "new-1", "success");
    rig.login(T + 6, "customer", "success");
    rig.commit(T + 6);
    let totals = ["customer", "__other__", "new-1"].map(|tenant| rig.total(tenant));
    assert_eq!(totals, [Some(6), Some(5), Some(1)]);
    assert_eq!(rig.registry.usage(NameKind::Tenant).held(), 2);
}

/// Keys with a service: over the budget an event counts without its tenant, then without its service, never nowhere.
#[test]
fn keys_over_the_budget_lose_their_tenant_then_their_service() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::with(dir.path(), Budgets { keys: 4, ..Budgets::default() });
    for (tenant, service) in (0..10).flat_map(|tenant| (0..5).map(move |service| (tenant, service))) {
        let (who, by) = (format!(r#""tenant":"t{tenant}","outcome":"success""#), format!(r#""service":"s{service}""#));
        rig.event(T, &format!(r#""kind":"permission","op":"check",{who},{by}"#));
        rig.event(T, &format!(r#""kind":"change","op":"deploy","change":{{"id":"c"}},{by}"#));
    }
    rig.login(T + 5, "t0", "success");
    rig.commit(T + 5);
    let durable = rig.durable.read().unwrap();
    let view = &durable.view;
    let mut counts = std::collections::BTreeMap::new();
    view.scan(&[], |counted| {
        let labels = [counted.key.def.tenant, counted.key.def.component].map(|name| view.name(name).to_string());
        counts.insert(labels, counted.counts.codes().map(|code| code.1).sum::<u64>());
    });
    assert_eq!(counts.values().sum::<u64>(), 100, "{counts:?}");
    let total = |tenant: &str, service: &str| counts.get(&[tenant.to_string(), service.to_string()]).copied();
    assert_eq!((total("t0", "s0"), total("", "s0")), (Some(1), Some(10)), "{counts:?}");
    assert!(total("__other__", "__other__") > Some(0) && total("", "__other__") > Some(0), "{counts:?}");
    assert_eq!(rig.registry.key_usage().held(), 4);
}
