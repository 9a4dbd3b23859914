//! P6: resident bytes per live (tenant, region) key at steady state: the reference load's 10,000 tenants and 12 regions,
//! 20,000 events/s of event time for two hours, through fold, Delta and view with all windows, in memory.

use larum_aggregate::NameId;
use larum_benches::{Pipeline, reference_profile};
use larum_load::Generator;
use larum_view::View;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Event time that is run through; `LARUM_SECONDS` for another.
const SECONDS: usize = 2 * 3600;
/// Pages are of this size on every machine that Larum is built for.
const PAGE_BYTES: usize = 4096;

/// Resident memory of this process, bytes.
fn resident_bytes() -> anyhow::Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split_whitespace().nth(1).unwrap_or_default().parse()?;
    Ok(pages * PAGE_BYTES)
}

/// Live (tenant, region) keys; what permissions and changes keep beside them is charged to them.
fn tenant_keys(view: &View) -> usize {
    view.keys().filter(|key| key.def.component == NameId::NONE).count().max(1)
}

fn main() -> anyhow::Result<()> {
    let seconds = std::env::var("LARUM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let profile = reference_profile();
    let per_second = profile.events_per_second as usize;
    let mut generator = Generator::new(profile)?;
    // What the generator needs grows while it meets its tenants for the first time; none of it is Larum's.
    for _ in 0..20 * per_second {
        generator.next_record();
    }
    let before_bytes = resident_bytes()?;
    let mut pipeline = Pipeline::default();
    for second in 1..=seconds {
        for _ in 0..per_second {
            let record = generator.next_record();
            pipeline.record(record.bytes, record.due_ns);
        }
        pipeline.commit();
        if second % 600 == 0 || second == seconds {
            let (keys, bytes) = (tenant_keys(&pipeline.view), resident_bytes()? - before_bytes);
            println!("{second} s: {keys} keys, {} MB, {} bytes a key", bytes >> 20, bytes / keys);
        }
    }
    println!("P6 {}", (resident_bytes()? - before_bytes) / tenant_keys(&pipeline.view));
    Ok(())
}
