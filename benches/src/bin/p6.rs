//! P6: resident bytes per live (tenant, region) key at steady state: the reference load's 10,000 tenants and 12 regions,
//! 20,000 events/s of event time for two hours, through fold, Delta and view with all windows, in memory.

use larum_aggregate::{Delta, Graces, NameId, SourceCut, SourceDef, SourceId, seal, seal_sightings};
use larum_benches::{reference_profile, registry, worker};
use larum_fold::{DeadLetters, Record};
use larum_load::Generator;
use larum_view::View;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SOURCE: SourceId = SourceId(0);
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
    let mut worker = worker(&registry());
    let start = worker.state(0).start.clone();
    let mut view = View::default();
    let def =
        SourceDef { id: SOURCE, name: "s".into(), delay_s: 0, topics: vec!["t".into()], grace: Graces::default() };
    view.apply(Delta { new_sources: vec![def], new_partitions: vec![start], ..Delta::default() });
    let (mut offset, mut spare) = (0, Vec::new());
    for second in 1..=seconds {
        for _ in 0..per_second {
            let record = generator.next_record();
            let (append_ns, value) = (record.due_ns, Some(record.bytes));
            worker.record(0, Record { offset, append_ns, value }, append_ns, DeadLetters::Count);
            offset += 1;
        }
        let mut cut = worker.cut(false, std::mem::take(&mut spare));
        let groups = cut.counted.iter_mut().flat_map(|of_source| seal(SOURCE, &mut of_source.entries)).collect();
        let sightings = cut.counted.iter_mut().flat_map(|s| seal_sightings(SOURCE, &mut s.sightings)).collect();
        let clock_ns = worker.state(0).watermark_ns;
        let sources = vec![SourceCut { id: SOURCE, clock_ns, paced_ns: 0, arrived_ns: 0, left_out: Vec::new() }];
        let (names, keys, parts) = (cut.names, cut.keys, cut.parts);
        view.apply(Delta { names, keys, parts, groups, sightings, sources, ..Delta::default() });
        spare = cut.counted;
        if second % 600 == 0 || second == seconds {
            let (keys, bytes) = (tenant_keys(&view), resident_bytes()? - before_bytes);
            println!("{second} s: {keys} keys, {} MB, {} bytes a key", bytes >> 20, bytes / keys);
        }
    }
    println!("P6 {}", (resident_bytes()? - before_bytes) / tenant_keys(&view));
    Ok(())
}
