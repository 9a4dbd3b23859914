//! Samples as text: Prometheus text format 0.0.4, or OpenMetrics 1.0.

use std::io::Write;
use std::sync::LazyLock;

use larum_aggregate::Exemplar;
use larum_aggregate::histogram::{self, classic};
use larum_view::signals::SignalType;
use larum_view::{ClassicRead, Family, HistogramRead, Label, LabelSet, Signal, Sink, Value};

use crate::page::{Block, Blocks, Buffer, Page, Spare};

/// The bounds of classic buckets with what follows them, which are written again and again: as text format 0.0.4 has them,
/// and in the canonical form of OpenMetrics. The last is infinity.
static CLASSIC_BOUNDS: LazyLock<Vec<[Block; 2]>> = LazyLock::new(|| {
    let block = |text: String| Block::of(format!("{text}\"}} ").as_bytes());
    let finite = histogram::CLASSIC_BOUNDS.iter();
    let finite = finite.map(|bound| [block(bound.to_string()), block(format!("{bound:?}"))]);
    finite.chain([[block("+Inf".to_string()), block("+Inf".to_string())]]).collect()
});

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
    families: Vec<FamilyText>,
    spare: Spare,
    /// Labels that every sample begins with, as text with a comma behind each, and the same in blocks.
    scope: (Vec<u8>, Blocks),
    labels: Vec<Labels>,
    /// What every bucket of a histogram begins with.
    start: Vec<u8>,
    start_blocks: Blocks,
}

/// Labels that were named.
#[derive(Debug)]
struct Labels {
    /// As text with a comma behind each.
    text: Vec<u8>,
    /// The same with what ends all labels in place of the last comma.
    closed: Blocks,
}

#[derive(Debug)]
struct FamilyText {
    signal: Signal,
    text: Buffer,
    /// How long it is without samples.
    header_len: usize,
    /// What samples begin with: the name, for histograms with each of the [`SUFFIXES`], and a brace.
    starts: [Blocks; 3],
}

impl TextWriter {
    /// A writer of one of the two.
    pub fn new(flavour: Flavour) -> Self {
        TextWriter { flavour, ..TextWriter::default() }
    }

    /// What was written since the last call, family by family; those without samples are left out.
    pub fn finish(&mut self) -> Page {
        let mut page = Page::default();
        for (at, FamilyText { text, header_len, .. }) in self.families.drain(..).enumerate() {
            if text.len() > header_len {
                page.push(self.spare.lend(at, text));
            }
        }
        self.labels.clear();
        if self.flavour == Flavour::OpenMetrics {
            page.push(&b"# EOF\n"[..]);
        }
        page
    }

    /// Names, units and help texts are ours and need no escape; a test says so. Writing to memory does not fail.
    fn header(&self, signal: &Signal, out: &mut Buffer) {
        let is_open = self.flavour == Flavour::OpenMetrics;
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
        let _ = write!(out, "# HELP {name} {}\n# TYPE {name} {kind}\n", signal.help);
        if let Some(unit) = signal.unit_in_name().filter(|_| is_open) {
            let _ = writeln!(out, "# UNIT {name} {unit}");
        }
    }

    /// What a sample begins with: one of the family's beginnings and its labels.
    #[inline]
    fn start(&mut self, family: Family, which: usize, labels: LabelSet) -> Option<&mut Buffer> {
        let FamilyText { text, starts, .. } = self.families.get_mut(family.0)?;
        let labels = self.labels.get(labels.0)?;
        text.put_blocks(&starts[which]);
        text.put_blocks(&self.scope.1);
        if labels.text.is_empty() {
            // In place of the scope's last comma, or of the brace before no labels at all.
            text.step_back();
            text.put(if self.scope.0.is_empty() { b" " } else { b"} " });
        } else {
            text.put_blocks(&labels.closed);
        }
        Some(text)
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

fn int(value: u64) -> impl FnOnce(&mut Buffer) {
    move |out| out.put(itoa::Buffer::new().format(value).as_bytes())
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
    move |out| {
        let (whole, rest) = (ns / 1_000_000_000, (ns % 1_000_000_000) as u32);
        out.put(itoa::Buffer::new().format(whole).as_bytes());
        if rest != 0 {
            // With a digit before them, so that none of the nine is lost.
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(rest + 1_000_000_000).trim_end_matches('0');
            out.put(b".");
            out.put(&digits.as_bytes()[1..]);
        }
    }
}

/// A float in the shortest form that reads back as the same.
fn float(value: f64) -> impl FnOnce(&mut Buffer) {
    move |out| {
        if value.is_finite() {
            let mut shortest = zmij::Buffer::new();
            let text = shortest.format_finite(value);
            return out.put(text.strip_suffix(".0").unwrap_or(text).as_bytes());
        }
        out.put(match value {
            f64::INFINITY => b"+Inf",
            f64::NEG_INFINITY => b"-Inf",
            _ => b"NaN",
        });
    }
}

impl Sink for TextWriter {
    fn family(&mut self, signal: &Signal) -> Family {
        let mut text = self.spare.buffer(self.families.len());
        self.header(signal, &mut text);
        let is_histogram = signal.kind == SignalType::Histogram;
        let start = |suffix: &str| {
            let suffix = if is_histogram { suffix } else { "" };
            Blocks::of(format!("{}{suffix}{{", signal.name).as_bytes())
        };
        let header_len = text.len();
        self.families.push(FamilyText { signal: *signal, header_len, text, starts: SUFFIXES.map(start) });
        Family(self.families.len() - 1)
    }

    fn labels(&mut self, labels: &[Label<'_>]) -> LabelSet {
        let mut text = Vec::new();
        write_labels(&mut text, labels);
        let inside = text.strip_suffix(b",").unwrap_or(&text);
        let closed = Blocks::of(&[inside, b"} "].concat());
        self.labels.push(Labels { text, closed });
        LabelSet(self.labels.len() - 1)
    }

    /// Start times are left out: in text they would be series of their own.
    fn scope(&mut self, labels: &[Label<'_>], _: Option<i64>) {
        let (text, blocks) = &mut self.scope;
        text.clear();
        write_labels(text, labels);
        blocks.set(text);
    }

    fn sample_of(&mut self, family: Family, labels: LabelSet, value: Value) {
        let Some(out) = self.start(family, 0, labels) else { return };
        match value {
            Value::Int(value) => out.put_block(&Block::line_end(value)),
            Value::Float(value) => {
                float(value)(out);
                out.put(b"\n");
            }
        }
    }

    fn histogram_of(&mut self, family: Family, labels: LabelSet, histogram: HistogramRead<'_>) {
        let TextWriter { flavour, families, scope, start, start_blocks, labels: known, .. } = self;
        let Some(FamilyText { signal, text, .. }) = families.get_mut(family.0) else { return };
        let Some(of_it) = known.get(labels.0) else { return };
        let is_open = *flavour == Flavour::OpenMetrics;
        // Buckets differ in bound and count only: what stands before the bound is put together once.
        start.clear();
        for part in [signal.name.as_bytes(), b"_bucket{", &scope.0, &of_it.text, b"le=\""] {
            start.extend_from_slice(part);
        }
        start_blocks.set(start);
        let total: u64 = histogram.buckets.iter().map(|bucket| bucket.1).sum();
        let counts = classic(histogram.buckets).chain([total]);
        // Many buckets hold nothing more than the one before.
        let mut written = (0, Block::line_end(0));
        for (at, (bounds, count)) in CLASSIC_BOUNDS.iter().zip(counts).enumerate() {
            if count != written.0 {
                written = (count, Block::line_end(count));
            }
            text.put_blocks(start_blocks);
            text.put_block(&bounds[usize::from(is_open)]);
            match histogram.exemplar_of(at).filter(|_| is_open) {
                None => text.put_block(&written.1),
                Some(of_it) => {
                    int(count)(text);
                    exemplar(of_it, text);
                    text.put(b"\n");
                }
            }
        }
        if let Some(out) = self.start(family, SUM, labels) {
            seconds(histogram.sum_ns)(out);
            out.put(b"\n");
        }
        if let Some(out) = self.start(family, COUNT, labels) {
            out.put_block(&Block::line_end(total));
        }
    }

    fn classic(&mut self, family: Family, labels: &[Label<'_>], histogram: ClassicRead<'_>) {
        let is_open = self.flavour == Flavour::OpenMetrics;
        let bound = |bound: &f64| if is_open { format!("{bound:?}") } else { bound.to_string() };
        let finite = histogram.buckets.iter().map(|(upper, below)| (bound(upper), *below));
        for (le, below) in finite.chain([("+Inf".to_string(), histogram.count)]) {
            let labels = self.labels(&[labels, &[("le", &le)]].concat());
            if let Some(out) = self.start(family, BUCKET, labels) {
                out.put_block(&Block::line_end(below));
            }
        }
        let labels = self.labels(labels);
        if let Some(out) = self.start(family, SUM, labels) {
            float(histogram.sum)(out);
            out.put(b"\n");
        }
        if let Some(out) = self.start(family, COUNT, labels) {
            out.put_block(&Block::line_end(histogram.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::histogram::bucket_of;
    use larum_view::signals::{self, SIGNALS};

    #[test]
    fn samples_and_histograms_in_text() {
        let mut writer = TextWriter::default();
        writer.family(&signals::TICK);
        let family = writer.family(&signals::LOGIN_LATENCY);
        writer.scope(&[("source", "s")], None);
        let buckets = [(0, 1), (bucket_of(500_000_000), 2), (bucket_of(500_000_001), 4), (bucket_of(u64::MAX), 8)];
        writer.histogram(
            family,
            &[("tenant", "a\"b\\c\nd")],
            HistogramRead { buckets: &buckets, sum_ns: 1_500_000_000, exemplars: &[] },
        );
        let text = String::from_utf8(writer.finish().to_vec()).unwrap();
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
        let text = String::from_utf8(writer.finish().to_vec()).unwrap();
        let values: Vec<&str> = text.lines().skip(2).map(|l| l.rsplit(' ').next().unwrap()).collect();
        assert_eq!(values, ["NaN", "+Inf", "0.1", "1e+21", "-3"]);
    }

    #[test]
    fn open_metrics_names_counters_without_their_suffix_and_ends() {
        let mut writer = TextWriter::new(Flavour::OpenMetrics);
        let (counter, latency) = (writer.family(&signals::AUDIT_RECORDS), writer.family(&signals::COMMIT_SECONDS));
        writer.sample(counter, &[("queue", "q")], Value::Int(3));
        writer.classic(latency, &[], ClassicRead { buckets: &[(1.0, 2)], sum: 7.5, count: 3 });
        let text = String::from_utf8(writer.finish().to_vec()).unwrap();
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
