//! Samples as text: Prometheus text format 0.0.4, or OpenMetrics 1.0.

use std::io::Write;
use std::sync::LazyLock;

use larum_aggregate::Exemplar;
use larum_aggregate::histogram;
use larum_view::signals::SignalType;
use larum_view::{ClassicRead, Family, HistogramRead, Label, LabelSet, Signal, Sink, Value};

use crate::page::{Blocks, Buffer, Page, Places, Spare};

/// The bounds of classic buckets with what follows them, which are written again and again: as text format 0.0.4 has them,
/// and in the canonical form of OpenMetrics. The last is infinity.
static CLASSIC_BOUNDS: LazyLock<Vec<[Blocks; 2]>> = LazyLock::new(|| {
    let blocks = |text: String| Blocks::of(format!("{text}\"}} ").as_bytes());
    let finite = histogram::CLASSIC_BOUNDS.iter();
    let finite = finite.map(|bound| [blocks(bound.to_string()), blocks(format!("{bound:?}"))]);
    finite.chain([[blocks("+Inf".to_string()), blocks("+Inf".to_string())]]).collect()
});

/// Whole numbers below are written digit by digit.
const WHOLE_MAX: f64 = 1e15;

/// Which text it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// Text format 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Suffixes of a histogram's samples.
const SUFFIXES: [&str; 3] = ["_sum", "_count", "_bucket"];
const SUM: usize = 0;
const COUNT: usize = 1;
const BUCKET: usize = 2;

/// Writes samples, a buffer for each family. It can be used again and again, which saves fresh memory for every scrape.
#[derive(Debug, Default)]
pub struct TextWriter {
    flavour: Flavour,
    /// Families that were named.
    families: Places<FamilyText>,
    spare: Spare,
    /// Labels that every sample begins with, as text with a comma behind each, and the same in blocks.
    scope: (Vec<u8>, Blocks),
    labels: Places<Labels>,
    /// The labels being named.
    inner: Vec<u8>,
    /// What every bucket of a histogram begins with.
    start: Blocks,
}

/// Labels that were named.
#[derive(Debug, Default)]
struct Labels {
    /// With what ends all labels; empty without any.
    closed: Blocks,
    /// With a comma behind, and the beginning of a bound.
    open: Blocks,
}

#[derive(Debug)]
struct FamilyText {
    signal: Signal,
    /// What stands before its samples.
    header: Vec<u8>,
    text: Buffer,
    /// What samples begin with: the name, for histograms with each of the [`SUFFIXES`], and a brace.
    starts: [Blocks; 3],
}

impl FamilyText {
    fn new(signal: &Signal, header: Vec<u8>) -> Self {
        let is_histogram = signal.kind == SignalType::Histogram;
        let start = |suffix: &str| {
            let suffix = if is_histogram { suffix } else { "" };
            Blocks::of(format!("{}{suffix}{{", signal.name).as_bytes())
        };
        FamilyText { signal: *signal, header, text: Buffer::default(), starts: SUFFIXES.map(start) }
    }
}

impl TextWriter {
    /// A writer of one of the two.
    pub fn new(flavour: Flavour) -> Self {
        TextWriter { flavour, ..TextWriter::default() }
    }

    /// What was written with all of them since the last call, family by family; those without samples are left out. They
    /// named the same families, the first all of them.
    pub fn finish(writers: &mut [TextWriter]) -> Page {
        let mut page = Page::default();
        let named = writers.first().map_or(0, |first| first.families.used().len());
        for at in 0..named {
            let mut has_header = false;
            for writer in &mut *writers {
                let Some(FamilyText { text, header, .. }) = writer.families.get_mut(at) else { continue };
                if text.len() > header.len() {
                    let header_len = if has_header { header.len() } else { 0 };
                    page.push(writer.spare.lend(at, std::mem::take(text)).slice(header_len..));
                    has_header = true;
                }
            }
        }
        writers.iter_mut().for_each(Sink::start_over);
        if writers.first().is_some_and(|first| first.flavour == Flavour::OpenMetrics) {
            page.push(&b"# EOF\n"[..]);
        }
        page
    }

    /// Names, units and help texts are ours and need no escape; a test says so. Writing to memory does not fail.
    fn header(signal: &Signal, is_open: bool) -> Vec<u8> {
        let kind = match signal.kind {
            // Linters of this format keep the label `quantile` for summaries, which this is not, and for what has no type.
            SignalType::Gauge if !is_open && signal.labels.contains(&"quantile") => "untyped",
            SignalType::Counter => "counter",
            SignalType::Gauge => "gauge",
            SignalType::Histogram => "histogram",
        };
        // There, a counter's family is named without the suffix of its samples.
        let name = match signal.kind {
            SignalType::Counter if is_open => signal.name.strip_suffix("_total").unwrap_or(signal.name),
            _ => signal.name,
        };
        let unit = signal.unit_in_name().filter(|_| is_open);
        let unit = unit.map_or_else(String::new, |unit| format!("# UNIT {name} {unit}\n"));
        format!("# HELP {name} {}\n# TYPE {name} {kind}\n{unit}", signal.help).into_bytes()
    }

    /// A sample: one of the family's beginnings, its labels, and a number.
    #[inline]
    fn line(&mut self, family: Family, which: usize, labels: LabelSet, number: u64) {
        let (Some(of_it), Some(labels)) = (self.families.get_mut(family.0), self.labels.get(labels.0)) else { return };
        let FamilyText { text, starts, .. } = of_it;
        if labels.closed.is_empty() {
            begin(text, &starts[which], &self.scope, labels);
            text.put_line([], number);
        } else {
            text.put_line([&starts[which], &self.scope.1, &labels.closed], number);
        }
    }

    /// The same up to the number.
    #[inline]
    fn start(&mut self, family: Family, which: usize, labels: LabelSet) -> Option<&mut Buffer> {
        let FamilyText { text, starts, .. } = self.families.get_mut(family.0)?;
        begin(text, &starts[which], &self.scope, self.labels.get(labels.0)?);
        Some(text)
    }
}

/// What a sample begins with.
#[inline]
fn begin(text: &mut Buffer, start: &Blocks, scope: &(Vec<u8>, Blocks), labels: &Labels) {
    if labels.closed.is_empty() {
        text.put_blocks([start, &scope.1]);
        // In place of the scope's last comma, or of the brace before no labels at all.
        text.step_back();
        text.put(if scope.0.is_empty() { b" " } else { b"} " });
    } else {
        text.put_blocks([start, &scope.1, &labels.closed]);
    }
}

/// Labels with a comma behind each.
fn write_labels(out: &mut Vec<u8>, labels: &[Label<'_>]) {
    for (name, text) in labels {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        escape(out, text);
        out.extend_from_slice(b"\",");
    }
}

/// A label's text between quotes. Shown names need no escape, but the format does not rest on that.
fn escape(out: &mut Vec<u8>, text: &str) {
    // Without an early end, so that many bytes are looked at in one step.
    let is_special = |special, byte| special | matches!(byte, b'\\' | b'"' | b'\n');
    if !text.bytes().fold(false, is_special) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
}

/// One of those that a count counts.
fn exemplar(Exemplar { trace_id, span_id, latency_ns, time_ns, .. }: &Exemplar, out: &mut Buffer) {
    let _ = write!(out, " # {{trace_id=\"{:032x}\"", u128::from_be_bytes(*trace_id));
    if let Some(span_id) = span_id {
        let _ = write!(out, ",span_id=\"{:016x}\"", u64::from_be_bytes(*span_id));
    }
    out.put(b"} ");
    seconds(u128::from(*latency_ns))(out);
    out.put(b" ");
    seconds(time_ns.max(&0).unsigned_abs().into())(out);
}

/// Whole ns as seconds, exactly.
fn seconds(ns: u128) -> impl FnOnce(&mut Buffer) {
    move |out| match u64::try_from(ns) {
        Ok(ns) => out.put_decimal(ns / 1_000_000_000, ns % 1_000_000_000),
        // Beyond five centuries.
        Err(_) => {
            let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
            out.put(text.trim_end_matches('0').trim_end_matches('.').as_bytes());
        }
    }
}

/// A float in the shortest form that reads back as the same, and the end of its line.
fn float_line(value: f64) -> impl FnOnce(&mut Buffer) {
    move |out| {
        let mut shortest = zmij::Buffer::new();
        let text = match value {
            f64::INFINITY => "+Inf",
            f64::NEG_INFINITY => "-Inf",
            value if value.is_nan() => "NaN",
            value => shortest.format_finite(value),
        };
        out.put_end(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
}

impl Sink for TextWriter {
    fn start_over(&mut self) {
        self.families.clear();
        self.labels.clear();
    }

    fn family(&mut self, signal: &Signal) -> Family {
        let is_open = self.flavour == Flavour::OpenMetrics;
        let new = || FamilyText::new(signal, TextWriter::header(signal, is_open));
        let (place, family) = self.families.next(|before| before.signal == *signal, new);
        match family.text.is_spent() {
            true => family.text = self.spare.buffer(place),
            false => family.text.clear(),
        }
        family.text.put(&family.header);
        Family(place)
    }

    fn has_exemplars(&self) -> bool {
        self.flavour == Flavour::OpenMetrics
    }

    fn labels(&mut self, labels: &[Label<'_>]) -> LabelSet {
        let text = &mut self.inner;
        text.clear();
        write_labels(text, labels);
        let (place, Labels { closed, open }) = self.labels.next(|_| true, Labels::default);
        let len = text.len();
        text.extend_from_slice(b"le=\"");
        open.set(text);
        text.truncate(len.saturating_sub(1));
        text.extend_from_slice(if len > 0 { b"} " } else { b"" });
        closed.set(text);
        LabelSet(place)
    }

    /// Start times are left out: in text they would be series of their own.
    fn scope(&mut self, labels: &[Label<'_>], _: Option<i64>) {
        let (text, blocks) = &mut self.scope;
        text.clear();
        write_labels(text, labels);
        blocks.set(text);
    }

    fn sample_of(&mut self, family: Family, labels: LabelSet, value: Value) {
        match value {
            Value::Int(number @ 0..) => self.line(family, 0, labels, number.unsigned_abs()),
            Value::Int(number) => {
                let Some(out) = self.start(family, 0, labels) else { return };
                out.put(b"-");
                out.put_line([], number.unsigned_abs());
            }
            // Many are whole: counts, and shares of nothing or of all.
            Value::Float(value) if value.is_sign_positive() && value < WHOLE_MAX && value == (value as u64) as f64 => {
                self.line(family, 0, labels, value as u64);
            }
            Value::Float(value) => {
                let Some(out) = self.start(family, 0, labels) else { return };
                float_line(value)(out);
            }
            Value::TimeNs(ns) => {
                let Some(out) = self.start(family, 0, labels) else { return };
                seconds(ns.into())(out);
                out.put(b"\n");
            }
        }
    }

    fn histogram_of(&mut self, family: Family, labels: LabelSet, histogram: HistogramRead<'_>) {
        let TextWriter { flavour, families, scope, start, labels: known, .. } = self;
        let Some(FamilyText { text, starts, .. }) = families.get_mut(family.0) else { return };
        let Some(of_it) = known.get(labels.0) else { return };
        let is_open = *flavour == Flavour::OpenMetrics;
        // Buckets differ in bound and count only: what stands before the bound is put together once.
        start.join([&starts[BUCKET], &scope.1, &of_it.open]);
        let total = histogram.buckets.total();
        let counts = histogram.buckets.classic().chain([total]);
        let bounds = CLASSIC_BOUNDS.iter().map(|bounds| &bounds[usize::from(is_open)]);
        if !is_open || histogram.exemplars.is_empty() {
            text.put_lines(start, bounds.zip(counts));
        } else {
            for ((bound, count), of_it) in bounds.zip(counts).zip(histogram.newest_exemplars()) {
                text.put_lines(start, [(bound, count)].into_iter());
                if let Some(of_it) = of_it {
                    text.step_back();
                    exemplar(of_it, text);
                    text.put(b"\n");
                }
            }
        }
        if let Some(out) = self.start(family, SUM, labels) {
            seconds(histogram.sum_ns)(out);
            out.put(b"\n");
        }
        self.line(family, COUNT, labels, total);
    }

    fn classic(&mut self, family: Family, labels: &[Label<'_>], histogram: ClassicRead<'_>) {
        let is_open = self.flavour == Flavour::OpenMetrics;
        let bound = |bound: &f64| if is_open { format!("{bound:?}") } else { bound.to_string() };
        let finite = histogram.buckets.iter().map(|(upper, below)| (bound(upper), *below));
        for (le, below) in finite.chain([("+Inf".to_string(), histogram.count)]) {
            let labels = self.labels(&[labels, &[("le", &le)]].concat());
            self.line(family, BUCKET, labels, below);
        }
        let labels = self.labels(labels);
        if let Some(out) = self.start(family, SUM, labels) {
            float_line(histogram.sum)(out);
        }
        self.line(family, COUNT, labels, histogram.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::BucketSets;
    use larum_aggregate::histogram::bucket_of;
    use larum_view::signals::{self, SIGNALS};

    #[test]
    fn samples_and_histograms_in_text() {
        let mut writer = TextWriter::default();
        writer.family(&signals::TICK);
        let family = writer.family(&signals::LOGIN_LATENCY);
        writer.scope(&[("source", "s")], None);
        let sets: BucketSets<()> =
            [(0, 1), (bucket_of(500_000_000), 2), (bucket_of(500_000_001), 4), (bucket_of(u64::MAX), 8)]
                .into_iter()
                .collect();
        writer.histogram(
            family,
            &[("tenant", "a\"b\\c\nd")],
            HistogramRead { buckets: sets.get(0), sum_ns: 1_500_000_000, exemplars: &[] },
        );
        let text = String::from_utf8(TextWriter::finish(&mut [writer]).to_vec()).unwrap();
        assert!(!text.contains("tick"), "a family without samples has no header");
        assert!(text.starts_with(
            "# HELP larum_login_latency_seconds Service time of logins.\n# TYPE larum_login_latency_seconds histogram\n"
        ));
        let labels = r#"{source="s",tenant="a\"b\\c\nd""#;
        for (le, count) in [("0.0009765625", 1), ("0.5", 3), ("1", 7), ("128", 7), ("+Inf", 15)] {
            let line = format!("larum_login_latency_seconds_bucket{labels},le=\"{le}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.ends_with(&format!("_sum{labels}}} 1.5\nlarum_login_latency_seconds_count{labels}}} 15\n")));
    }

    #[test]
    fn values_without_labels_and_odd_floats() {
        let mut writer = TextWriter::default();
        let family = writer.family(&signals::TICK);
        for value in [f64::NAN, f64::INFINITY, 0.1, 1e21] {
            writer.sample(family, &[], Value::Float(value));
        }
        writer.sample(family, &[], Value::Int(-3));
        writer.sample(family, &[], Value::TimeNs(12_345_678));
        let text = String::from_utf8(TextWriter::finish(&mut [writer]).to_vec()).unwrap();
        let values: Vec<&str> = text.lines().skip(2).map(|l| l.rsplit(' ').next().unwrap()).collect();
        assert_eq!(values, ["NaN", "+Inf", "0.1", "1e+21", "-3", "0.012345678"]);
    }

    #[test]
    fn open_metrics_names_counters_without_their_suffix_and_ends() {
        let mut writer = TextWriter::new(Flavour::OpenMetrics);
        let (counter, latency) = (writer.family(&signals::AUDIT_RECORDS), writer.family(&signals::COMMIT_SECONDS));
        writer.sample(counter, &[("queue", "q")], Value::Int(3));
        writer.classic(latency, &[], ClassicRead { buckets: &[(1.0, 2)], sum: 7.5, count: 3 });
        let text = String::from_utf8(TextWriter::finish(&mut [writer]).to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE larum_audit_records counter",
                "# UNIT larum_audit_records records",
                "larum_audit_records_total{queue=\"q\"} 3",
                "# TYPE larum_pipeline_commit_seconds histogram",
                "# UNIT larum_pipeline_commit_seconds seconds",
                "larum_pipeline_commit_seconds_bucket{le=\"1.0\"} 2",
                "larum_pipeline_commit_seconds_bucket{le=\"+Inf\"} 3",
                "larum_pipeline_commit_seconds_sum 7.5",
                "larum_pipeline_commit_seconds_count 3",
                "# EOF",
            ]
        );
    }

    #[test]
    fn help_texts_need_no_escape() {
        assert!(SIGNALS.iter().all(|signal| !signal.help.contains(['\\', '"', '\n'])));
    }
}
