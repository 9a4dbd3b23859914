//! P1: decode + key + fold (sealing into a Delta included) of the reference load on one thread, over a bare sonic-rs
//! derive of the same fields.

use std::borrow::Cow;
use std::hint::black_box;

use larum_aggregate::{SourceId, seal, seal_sightings};
use larum_benches::{REPETITIONS, least, median, reference_load, registry, time, worker};
use larum_event::{Decoder, Limits};
use larum_fold::{Counted, DeadLetters, Record, Worker, no_header};
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of the load: 80 MB, far beyond the caches.
const RECORDS: usize = 200_000;
/// Records between cuts: what a commit interval holds at 400,000 events a second.
const CUT: usize = 100_000;

/// The fields of the contract, as a derive reads them: no check of ranges, times, names or duplicates.
#[derive(Deserialize)]
#[serde(default)]
struct Bare<'a> {
    v: u8,
    #[serde(borrow)]
    time: Time<'a>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    op: Cow<'a, str>,
    count: u32,
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    region: Cow<'a, str>,
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow)]
    actor: Actor<'a>,
    #[serde(borrow)]
    source: Source<'a>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    latency_ms: Option<f64>,
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
    #[serde(borrow)]
    queue: Cow<'a, str>,
    #[serde(borrow)]
    producer: Cow<'a, str>,
    seq: u64,
}

impl Default for Bare<'_> {
    fn default() -> Self {
        let empty = || Cow::Borrowed("");
        Bare {
            v: 1,
            time: Time(empty()),
            id: empty(),
            kind: empty(),
            op: empty(),
            count: 1,
            tenant: empty(),
            region: empty(),
            service: empty(),
            actor: Actor::default(),
            source: Source::default(),
            client: empty(),
            outcome: empty(),
            reason: None,
            latency_ms: None,
            trace_id: empty(),
            span_id: empty(),
            queue: empty(),
            producer: empty(),
            seq: 0,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Actor<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source<'a> {
    #[serde(borrow)]
    ip: Cow<'a, str>,
    asn: u32,
    #[serde(borrow)]
    ua: Cow<'a, str>,
}

/// A text or a number, kept as it came.
struct Time<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Time<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Time<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Time<'de>, E> {
                Ok(Time(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Time<'de>, E> {
                Ok(Time(Cow::Owned(text.to_string())))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Time<'de>, E> {
                Ok(Time(Cow::Borrowed("")))
            }
        }
        d.deserialize_any(Visit)
    }
}

fn bare(load: &[(Vec<u8>, i64)]) -> usize {
    let mut bytes = 0;
    for (record, _) in load {
        if let Ok(event) = sonic_rs::from_slice::<Bare<'_>>(record) {
            bytes += event.tenant.len() + event.time.0.len() + event.reason.as_ref().map_or(0, |r| r.len());
            black_box((event.v, &event.id, &event.kind, &event.op, event.count, &event.region, &event.service));
            black_box((&event.actor.id, &event.actor.r#type, &event.source.ip, event.source.asn, &event.source.ua));
            black_box((&event.client, &event.outcome, event.latency_ms, &event.trace_id, &event.span_id));
            black_box((&event.queue, &event.producer, event.seq));
        }
    }
    bytes
}

/// `spare`: memory of earlier cuts, which comes back as the program's does.
fn ours(worker: &mut Worker, load: &[(Vec<u8>, i64)], offset: &mut i64, spare: &mut Vec<Counted>) -> (usize, u64) {
    let (mut rows, mut counted) = (0, 0);
    for chunk in load.chunks(CUT) {
        for (value, append_ns) in chunk {
            let record = Record { offset: *offset, append_ns: *append_ns, value: Some(value), traceparent: &no_header };
            worker.record(0, record, *append_ns, DeadLetters::Count);
            *offset += 1;
        }
        let mut cut = worker.cut(false, std::mem::take(spare));
        counted += cut.parts.iter().flat_map(|p| &p.marks).map(|m| m.tally.decoded).sum::<u64>();
        for of_source in &mut cut.counted {
            rows += seal(SourceId(0), &mut of_source.entries).iter().map(|g| g.counts.len()).sum::<usize>();
            let sightings = seal_sightings(SourceId(0), &mut of_source.sightings);
            rows += sightings.iter().map(|g| g.rows.len()).sum::<usize>();
        }
        *spare = cut.counted;
    }
    (rows, counted)
}

/// Decoding alone, to see where the time goes.
fn decode(load: &[(Vec<u8>, i64)]) -> u64 {
    let mut decoder = Decoder::new(Limits::default());
    load.iter().filter_map(|r| decoder.decode(&r.0).ok().map(|e| u64::from(e.count()) + e.tenant().len() as u64)).sum()
}

fn main() -> anyhow::Result<()> {
    let load = reference_load(RECORDS)?;
    let bytes: usize = load.iter().map(|r| r.0.len()).sum();
    println!("reference load: {RECORDS} records, {} B on average", bytes / RECORDS);
    let (mut worker, mut offset, mut spare) = (worker(&registry()), 0, Vec::new());
    let (mut floors, mut figures, mut decodes) = (Vec::new(), Vec::new(), Vec::new());
    let mut result = (0, 0);
    ours(&mut worker, &load, &mut offset, &mut spare);
    black_box(bare(&load));
    for _ in 0..REPETITIONS {
        let (floor, sum) = time(|| bare(&load));
        black_box(sum);
        let (figure, now) = time(|| ours(&mut worker, &load, &mut offset, &mut spare));
        result = now;
        let (alone, sum) = time(|| decode(&load));
        black_box(sum);
        let per_event = |d: std::time::Duration| d.as_nanos() as f64 / RECORDS as f64;
        floors.push(per_event(floor));
        figures.push(per_event(figure));
        decodes.push(per_event(alone));
    }
    anyhow::ensure!(result.1 == RECORDS as u64, "{} of {RECORDS} decoded", result.1);
    println!("bare sonic-rs derive:             {:.0} ns/event median, {:.0} least", median(&floors), least(&floors));
    println!("decode alone:                     {:.0} ns/event median, {:.0} least", median(&decodes), least(&decodes));
    println!("decode + key + fold + seal:       {:.0} ns/event median, {:.0} least", median(&figures), least(&figures));
    println!("{} rows from {RECORDS} events; {REPETITIONS} interleaved repetitions, one thread", result.0);
    // The machine's speed drifts within a run: each figure is compared with the floor right before it.
    let ratios: Vec<f64> = figures.iter().zip(&floors).map(|(figure, floor)| figure / floor).collect();
    println!("P1 {:.3}", median(&ratios));
    Ok(())
}
