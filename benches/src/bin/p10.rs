//! P10: the whole shipped catalogue judged live at 10,000 tenants and 12 regions, 20,000 events/s: share of one core that
//! the ticks' judgement takes. What windows add up to for it is part of applying a tick, whose share is printed beside it.

use std::time::{Duration, Instant};

use larum::config::shipped;
use larum_alert::Alerts;
use larum_benches::{Pipeline, reference_profile};
use larum_load::Generator;
use larum_view::{TickRead, TickWatcher};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Event time before the measurement, seconds: long enough for nearly every key to be there.
const WARM_UP_S: usize = 900;
/// Ticks that are measured.
const MEASURED_S: usize = 120;

/// Measures another watcher.
struct Timed<W> {
    inner: W,
    took: Duration,
    worst: Duration,
}

impl<W: TickWatcher> TickWatcher for Timed<W> {
    fn tick(&mut self, read: &TickRead<'_>) {
        let began = now();
        self.inner.tick(read);
        let took = began.elapsed();
        self.took += took;
        self.worst = self.worst.max(took);
    }
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

fn main() -> anyhow::Result<()> {
    let (catalogue, profile) = (shipped(), reference_profile());
    let warm_up_s = std::env::var("LARUM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(WARM_UP_S);
    let per_second = profile.events_per_second as usize;
    let mut generator = Generator::new(profile)?;
    let (mut pipeline, mut alerts) = (Pipeline::default(), Alerts::default());
    let (mut judged, mut worst, mut applied) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for second in 0..warm_up_s + MEASURED_S {
        for _ in 0..per_second {
            let record = generator.next_record();
            pipeline.record(record.bytes, record.due_ns);
        }
        let mut timed = Timed { inner: alerts.watcher(&catalogue), took: Duration::ZERO, worst: Duration::ZERO };
        let took = pipeline.commit_watched(&mut timed);
        if second >= warm_up_s {
            judged += timed.took;
            worst = worst.max(timed.worst);
            applied += took;
        }
    }
    let keys = pipeline.view.keys().count();
    let share = |took: Duration| took.as_secs_f64() / MEASURED_S as f64;
    println!(
        "{keys} keys, {} alerts: judging takes {:.4} of a core, {:.1} ms at worst; applying ticks with it {:.4}",
        catalogue.alerts.len(),
        share(judged),
        worst.as_secs_f64() * 1_000.0,
        share(applied)
    );
    println!("P10 {:.4}", share(judged));
    Ok(())
}
