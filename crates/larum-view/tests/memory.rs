//! What the view says of its memory is what the allocator counts, and the written model is true.

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used)]

use std::alloc::System;

use larum_aggregate::time::PANE_S;
use larum_aggregate::{
    Delta, Distinct, Entry, Graces, KeyDef, KeyId, NameDef, NameId, NameKind, Sighting, SourceCut, SourceDef, SourceId,
    seal, seal_sightings,
};
use larum_view::View;
use larum_view::memory::KEY_BYTES_BY_ACTIVITY;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SOURCE: SourceId = SourceId(0);
const T: u32 = 1_773_480_000;
/// Event time that is run through: all windows but the tail of the longest are then full.
const SECONDS: u32 = 2 * 3600;

/// A view of `keys` keys at `per_hour` events an hour each: a fifth logins, the rest tokens, mostly successes, latencies
/// over some forty buckets.
fn view(keys: u32, per_hour: u32) -> View {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut view = View::default();
    let def =
        SourceDef { id: SOURCE, name: "s".into(), delay_s: 0, topics: vec!["t".into()], grace: Graces::default() };
    let name = |id| NameDef { id: NameId(id), kind: NameKind::Tenant, text: format!("tenant-{id:06}") };
    let key = |id| KeyDef {
        id: KeyId(id),
        source: SOURCE,
        tenant: NameId(1 + id / 12),
        region: NameId(1 + id % 12),
        component: NameId::NONE,
    };
    view.apply(Delta {
        new_sources: vec![def],
        names: (1..=keys.div_ceil(12).max(12)).map(name).collect(),
        keys: (0..keys).map(key).collect(),
        ..Delta::default()
    });
    let mut due = 0.0;
    for second in 0..SECONDS {
        due += f64::from(keys) * f64::from(per_hour) / 3600.0;
        let (mut entries, mut sightings) = (Vec::new(), Vec::new());
        let tick = T + second;
        while due >= 1.0 {
            due -= 1.0;
            let (key, pane) = (KeyId(rng.u32(..keys)), tick / PANE_S);
            let is_login = rng.u8(..5) == 0;
            // Codes of logins and of token issues and refreshes, by outcome and reason; one in ten fails.
            let code = match (is_login, rng.u8(..10)) {
                (true, 0) => 14 + rng.u16(..3),
                (true, _) => 0,
                (false, 0) => [120, 160][rng.usize(..2)],
                (false, _) => [100, 150][rng.usize(..2)],
            };
            let bucket = 200 + (0..8).map(|_| rng.u16(..6)).sum::<u16>();
            entries.push(Entry::new(tick, Some(pane), true, key, code, 1).measured(rng.u64(..300_000_000), bucket));
            if is_login {
                sightings.push(Sighting::new(tick, pane, key, Distinct::Accounts, rng.u32(..)));
                sightings.push(Sighting::new(tick, pane, key, Distinct::Sources, rng.u32(..)));
            }
        }
        let clock_ns = Some(i64::from(tick + 1) * 1_000_000_000);
        view.apply(Delta {
            groups: seal(SOURCE, &mut entries),
            sightings: seal_sightings(SOURCE, &mut sightings),
            sources: vec![SourceCut { id: SOURCE, clock_ns, paced_ns: 0, arrived_ns: 0, left_out: Vec::new() }],
            ..Delta::default()
        });
    }
    view
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn the_written_model_and_the_view_agree_with_the_allocator() {
    for (per_hour, written) in KEY_BYTES_BY_ACTIVITY {
        // About as many events for each row.
        let keys = (1_000_000 / per_hour).clamp(60, 10_000);
        let region = Region::new(ALLOCATOR);
        let view = view(keys, per_hour);
        let change = region.change();
        let counted = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
        let said = view.size_bytes() as i64;
        let per_key = counted / i64::from(keys);
        println!("{per_hour} events an hour: {per_key} bytes a key; the view says {}", said / i64::from(keys));
        assert!((said - counted).abs() * 10 <= counted, "{per_hour}: the view says {said}, the allocator {counted}");
        let written = written as i64;
        assert!((per_key - written).abs() * 5 <= written, "{per_hour}: written {written}, counted {per_key}");
    }
}
