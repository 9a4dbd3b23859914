//! P7: events/s of two fold workers with a thread and a partition each over one worker, in memory: decode, key, fold and
//! cut of the reference load; the registry is shared as in the program.

use std::hint::black_box;
use std::sync::Arc;

use larum_benches::{median, reference_load, registry, time, worker};
use larum_fold::{Counted, DeadLetters, Record, Registry, Worker, no_header};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of each worker's load: 80 MB, far beyond the caches.
const RECORDS: usize = 200_000;
/// Records between cuts: what a commit interval holds at 400,000 events a second.
const CUT: usize = 100_000;

/// Rounds of one worker, then two: many, because the second core is often busy with something else for a moment.
const ROUNDS: usize = 45;

type Load = [(Vec<u8>, i64)];

/// A worker that has read its load once, so that it knows all names.
struct Reader<'l> {
    worker: Worker,
    load: &'l Load,
    offset: i64,
    /// Memory of the cut before, which the program uses again as well.
    spare: Vec<Counted>,
}

impl<'l> Reader<'l> {
    fn new(registry: &Arc<Registry>, load: &'l Load) -> Self {
        let mut reader = Reader { worker: worker(registry), load, offset: 0, spare: Vec::new() };
        reader.read();
        reader
    }

    fn read(&mut self) {
        for chunk in self.load.chunks(CUT) {
            for (value, append_ns) in chunk {
                let record =
                    Record { offset: self.offset, append_ns: *append_ns, value: Some(value), traceparent: &no_header };
                self.worker.record(0, record, *append_ns, DeadLetters::Count);
                self.offset += 1;
            }
            self.spare = black_box(self.worker.cut(false, std::mem::take(&mut self.spare))).counted;
        }
    }
}

fn main() -> anyhow::Result<()> {
    let load = reference_load(2 * RECORDS)?;
    let (first, second) = load.split_at(RECORDS);
    let registry = registry();
    let (mut one, mut other) = (Reader::new(&registry, first), Reader::new(&registry, second));
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let (alone, ()) = time(|| one.read());
        let (together, ()) = time(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| other.read());
                one.read();
            });
        });
        let rate = |records: usize, took: std::time::Duration| records as f64 / took.as_secs_f64();
        let (alone, together) = (rate(RECORDS, alone), rate(2 * RECORDS, together));
        println!("one worker {alone:.0} events/s, two {together:.0} events/s");
        ratios.push(together / alone);
    }
    println!("P7 {:.3}", median(&ratios));
    Ok(())
}
