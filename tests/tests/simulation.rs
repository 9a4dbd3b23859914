//! The seeded simulation: fold, store and view in one thread over a model log and a model disk, crashed anywhere, against
//! a naive recount that shares no code with the core.
//!
//! 500 seeds in the ordinary run; `LARUM_SEEDS=10000` for the long one, `LARUM_SEED=n` for one alone.

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod sim;

use sim::rig::{Fault, Rig};

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("LARUM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("LARUM_SEEDS").unwrap_or(500)).collect(),
    }
}

/// Runs one seed; a panic inside counts as a failure that names it. Gives how often a partition was held.
fn survive(seed: u64, fault: Option<Fault>) -> Result<u64, String> {
    let run = || -> Result<u64, String> {
        let mut rig = Rig::new(seed, fault);
        for _ in 0..120 {
            rig.step()?;
        }
        rig.finish()?;
        Ok(rig.holds)
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or(panic.downcast_ref::<&str>().map(|t| t.to_string())).unwrap_or_default())
    })
}

#[test]
fn nothing_is_lost_or_doubled_by_any_crash() {
    let seeds = seeds();
    let (count, mut holds) = (seeds.len(), 0);
    for seed in seeds {
        holds += survive(seed, None).unwrap_or_else(|error| panic!("LARUM_SEED={seed}: {error}"));
    }
    println!("{count} seeds; {holds} times a partition that ran ahead was held");
    assert!(holds > 0 || count == 1, "no partition ever ran ahead");
}

/// The simulation bites: each deliberate fault is caught within a few seeds.
fn is_caught(fault: Fault) {
    let caught = (0..40).find_map(|seed| survive(seed, Some(fault)).err().map(|error| (seed, error)));
    let (seed, error) = caught.unwrap_or_else(|| panic!("{fault:?} was not caught"));
    println!("{fault:?} caught with seed {seed}: {error}");
}

#[test]
fn visible_before_durable_is_caught() {
    is_caught(Fault::VisibleBeforeDurable);
}

#[test]
fn an_offset_saved_before_its_delta_is_caught() {
    is_caught(Fault::OffsetBeforeDelta);
}

#[test]
fn a_delta_applied_twice_is_caught() {
    is_caught(Fault::AppliedTwice);
}

#[test]
fn a_lost_dead_letter_is_caught() {
    is_caught(Fault::LetterLost);
}

/// Invariant 6, second half: a log read from behind gives the same ticks whatever the workers, batches and restarts.
#[test]
fn a_log_read_from_behind_gives_the_same_ticks() {
    let mut audited: larum_tests::audit::Shown = Default::default();
    for seed in 0..60 {
        let mut rig = Rig::new(seed, None);
        rig.fill(400);
        rig.read_from_behind().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        audited.iter_mut().zip(rig.audited).for_each(|(sum, shown)| *sum += shown);
    }
    println!("audit queues showed {audited:?}");
    assert!(audited.iter().all(|sum| *sum > 0), "something about audit queues was never met: {audited:?}");
}

/// A reader that pushes its windows on by its fastest partition drops what the others still hold.
#[test]
fn catching_up_over_uneven_backlogs_counts_every_event() {
    for seed in 0..60 {
        let mut rig = Rig::new(seed, None);
        rig.fill_unevenly(300);
        rig.catch_up().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
