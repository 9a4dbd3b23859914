//! P5: writing a scrape of 100,000 sample lines (families as the reference load mixes them) as text, over the `prometheus`
//! crate's gather + encode of the same series; between two scrapes the load goes on for a second. P5b: the same state as protobuf with classic and native histograms, over
//! the same floor.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;

use larum_benches::{REPETITIONS, Saturated, median, saturated, time};
use larum_export::{Flavour, ProtoWriter, TextWriter, writers};
use larum_view::signals::{SIGNALS, SignalType};
use prometheus::{CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Names and values of a line's labels, without `le`.
fn labels(line: &str) -> Vec<(&str, &str)> {
    let inside = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inside, _)| inside);
    // The reference load's names need no escape.
    let pairs = inside.split("\",").filter_map(|pair| pair.trim_end_matches('"').split_once("=\""));
    pairs.filter(|pair| pair.0 != "le").collect()
}

/// The same series in the crate's registry.
fn floor(text: &str) -> anyhow::Result<Registry> {
    let registry = Registry::new();
    let mut by_family: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        by_family.entry(name).or_default().push(line);
    }
    let bounds: Vec<f64> = (-10..=7).map(|power: i32| f64::exp2(f64::from(power))).collect();
    for signal in SIGNALS {
        let name = match signal.kind {
            SignalType::Histogram => format!("{}_count", signal.name),
            _ => signal.name.to_string(),
        };
        let Some(lines) = by_family.get(name.as_str()) else { continue };
        let names: Vec<&str> = labels(lines[0]).into_iter().map(|label| label.0).collect();
        let opts = Opts::new(signal.name, signal.help);
        let counters = CounterVec::new(opts.clone(), &names)?;
        let gauges = GaugeVec::new(opts, &names)?;
        let histograms =
            HistogramVec::new(HistogramOpts::new(signal.name, signal.help).buckets(bounds.clone()), &names)?;
        for line in lines {
            let values: HashMap<&str, &str> = labels(line).into_iter().collect();
            let value: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
            match signal.kind {
                SignalType::Counter => counters.get_metric_with(&values)?.inc_by(value),
                SignalType::Gauge => gauges.get_metric_with(&values)?.set(value),
                SignalType::Histogram => {
                    let histogram = histograms.get_metric_with(&values)?;
                    bounds.iter().for_each(|bound| histogram.observe(*bound));
                }
            }
        }
        match signal.kind {
            SignalType::Counter => registry.register(Box::new(counters))?,
            SignalType::Gauge => registry.register(Box::new(gauges))?,
            SignalType::Histogram => registry.register(Box::new(histograms))?,
        }
    }
    Ok(registry)
}

fn main() -> anyhow::Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or("P5".into());
    let mut state = saturated()?;
    // Writers are kept from scrape to scrape, as the program keeps them.
    let (mut texts, mut protos) = (writers(|| TextWriter::new(Flavour::Prometheus)), writers(ProtoWriter::default));
    let mut text = |state: &mut Saturated| {
        state.visit(&mut texts);
        TextWriter::finish(&mut texts)
    };
    let mut proto = |state: &mut Saturated| {
        state.visit(&mut protos);
        ProtoWriter::finish(&mut protos)
    };
    let page = String::from_utf8(text(&mut state).to_vec())?;
    let lines = page.lines().filter(|line| !line.starts_with('#')).count();
    let registry = floor(&page)?;
    let crate_text = || {
        let mut out = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut out).map(|()| out)
    };
    let its_lines = crate_text()?.split(|b| *b == b'\n').filter(|line| !line.starts_with(b"#")).count() - 1;
    println!("{lines} sample lines, {} MB of text, {} MB of protobuf", page.len() >> 20, proto(&mut state).len() >> 20);
    println!("the crate writes {its_lines} lines of the same series");
    let (mut floors, mut text_s, mut proto_s) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        floors.push(time(|| black_box(crate_text().is_ok())).0.as_secs_f64());
        state.go_on();
        text_s.push(time(|| black_box(text(&mut state))).0.as_secs_f64());
        state.go_on();
        proto_s.push(time(|| black_box(proto(&mut state))).0.as_secs_f64());
    }
    let ms = |figures: &[f64]| median(figures) * 1e3;
    let (floor_ms, text_ms, proto_ms) = (ms(&floors), ms(&text_s), ms(&proto_s));
    println!("prometheus crate {floor_ms:.1} ms, text {text_ms:.1} ms, protobuf {proto_ms:.1} ms (medians)");
    let figures = [("P5", text_ms / floor_ms), ("P5b", proto_ms / floor_ms)];
    let (last, others): (Vec<_>, Vec<_>) = figures.into_iter().partition(|figure| figure.0 == wanted);
    for (name, figure) in others.into_iter().chain(last) {
        println!("{name} {figure:.4}");
    }
    Ok(())
}
