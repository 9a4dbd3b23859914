//! Samples as text: Prometheus text format 0.0.4, or OpenMetrics 1.0.

use std::io::Write;
use std::sync::LazyLock;

use larum_aggregate::Exemplar;
use larum_aggregate::histogram::{CLASSIC_POWERS, classic};
use larum_view::signals::SignalType;
use larum_view::{ClassicRead, Family, HistogramRead, Label, Signal, Sink, Value};

/// The bounds of classic buckets as text, which are written again and again: as text format 0.0.4 has them, and in the
/// canonical form of OpenMetrics.
static CLASSIC_BOUNDS: LazyLock<Vec<[String; 2]>> = LazyLock::new(|| {
    let bound = |power| f64::exp2(f64::from(power));
    CLASSIC_POWERS.map(|power| [bound(power).to_string(), format!("{:?}", bound(power))]).collect()
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

/// Writes samples, a buffer for each family. It can be used again and again, which saves fresh memory for every scrape.
#[derive(Debug, Default)]
pub struct TextWriter {
    flavour: Flavour,
    families: Vec<FamilyText>,
    /// Families that were named; further ones are memory of the scrape before.
    named: usize,
    /// Labels that every sample begins with, as text.
    scope: Vec<u8>,
    /// What every bucket of a histogram begins with.
    start: Vec<u8>,
}

#[derive(Debug)]
struct FamilyText {
    signal: Signal,
    text: Vec<u8>,
}

impl TextWriter {
    /// A writer of one of the two.
    pub fn new(flavour: Flavour) -> Self {
        TextWriter { flavour, ..TextWriter::default() }
    }

    /// What was written since the last call, family by family; those without samples are left out.
    pub fn finish(&mut self) -> Vec<u8> {
        let written = &self.families[..self.named];
        let size: usize = written.iter().map(|family| family.text.len() + 512).sum();
        let mut out = Vec::with_capacity(size);
        for FamilyText { signal, text } in written.iter().filter(|family| !family.text.is_empty()) {
            self.header(signal, &mut out);
            out.extend_from_slice(text);
        }
        if self.flavour == Flavour::OpenMetrics {
            out.extend_from_slice(b"# EOF\n");
        }
        self.named = 0;
        out
    }

    /// Names, units and help texts are ours and need no escape; a test says so. Writing to memory does not fail.
    fn header(&self, signal: &Signal, out: &mut Vec<u8>) {
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

    fn line(
        &mut self,
        family: Family,
        suffix: &str,
        labels: &[Label<'_>],
        le: Option<&str>,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(FamilyText { signal, text }) = self.families.get_mut(family.0) else { return };
        text.extend_from_slice(signal.name.as_bytes());
        text.extend_from_slice(suffix.as_bytes());
        if !self.scope.is_empty() || !labels.is_empty() || le.is_some() {
            text.push(b'{');
            text.extend_from_slice(&self.scope);
            write_labels(text, labels);
            le.into_iter().for_each(|le| write_labels(text, &[("le", le)]));
            // The last label's comma.
            text.pop();
            text.push(b'}');
        }
        text.push(b' ');
        value(text);
        text.push(b'\n');
    }

    /// A bound as this flavour writes it.
    fn bound<'t>(&self, texts: &'t [String; 2]) -> &'t str {
        &texts[usize::from(self.flavour == Flavour::OpenMetrics)]
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
    if !text.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
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

fn int(value: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |out| out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes())
}

/// A count with one of those that it counts.
fn told<'e>(count: u64, exemplar: Option<&'e Exemplar>) -> impl FnOnce(&mut Vec<u8>) + use<'e> {
    move |out| {
        int(count)(out);
        let Some(Exemplar { trace_id, span_id, latency_ns, time_ns, .. }) = exemplar else { return };
        let _ = write!(out, " # {{trace_id=\"{:032x}\"", u128::from_be_bytes(*trace_id));
        if let Some(span_id) = span_id {
            let _ = write!(out, ",span_id=\"{:016x}\"", u64::from_be_bytes(*span_id));
        }
        out.extend_from_slice(b"} ");
        seconds(u128::from(*latency_ns))(out);
        out.push(b' ');
        seconds(time_ns.max(&0).unsigned_abs().into())(out);
    }
}

/// Whole ns as seconds, exactly.
fn seconds(ns: u128) -> impl FnOnce(&mut Vec<u8>) {
    move |out| {
        let (whole, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
        let _ = write!(out, "{whole}");
        if rest != 0 {
            let digits = format!("{rest:09}");
            let _ = write!(out, ".{}", digits.trim_end_matches('0'));
        }
    }
}

/// A float in the shortest form that reads back as the same.
fn float(value: f64) -> impl FnOnce(&mut Vec<u8>) {
    move |out| {
        let _ = if value.is_nan() {
            write!(out, "NaN")
        } else if value.is_infinite() {
            write!(out, "{}Inf", if value > 0.0 { '+' } else { '-' })
        } else {
            write!(out, "{value}")
        };
    }
}

impl Sink for TextWriter {
    fn family(&mut self, signal: &Signal) -> Family {
        match self.families.get_mut(self.named) {
            Some(family) => {
                family.signal = *signal;
                family.text.clear();
            }
            None => self.families.push(FamilyText { signal: *signal, text: Vec::new() }),
        }
        self.named += 1;
        Family(self.named - 1)
    }

    /// Start times are left out: in text they would be series of their own.
    fn scope(&mut self, labels: &[Label<'_>], _: Option<i64>) {
        self.scope.clear();
        write_labels(&mut self.scope, labels);
    }

    fn sample(&mut self, family: Family, labels: &[Label<'_>], value: Value) {
        self.line(family, "", labels, None, |out| match value {
            Value::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            Value::Float(value) => float(value)(out),
        });
    }

    fn histogram(&mut self, family: Family, labels: &[Label<'_>], histogram: HistogramRead<'_>) {
        let TextWriter { flavour, families, scope, start, .. } = self;
        let Some(FamilyText { signal, text }) = families.get_mut(family.0) else { return };
        let is_open = *flavour == Flavour::OpenMetrics;
        // Buckets differ in bound and count only: what stands before the bound is put together once.
        start.clear();
        start.extend_from_slice(signal.name.as_bytes());
        start.extend_from_slice(b"_bucket{");
        start.extend_from_slice(scope);
        write_labels(start, labels);
        start.extend_from_slice(b"le=\"");
        text.reserve((CLASSIC_BOUNDS.len() + 3) * (start.len() + 48));
        let mut line = |at: usize, bound: &str, count: u64| {
            text.extend_from_slice(start);
            text.extend_from_slice(bound.as_bytes());
            text.extend_from_slice(b"\"} ");
            told(count, if is_open { histogram.exemplar_of(at) } else { None })(text);
            text.push(b'\n');
        };
        for (at, (bounds, (_, below))) in CLASSIC_BOUNDS.iter().zip(classic(histogram.buckets)).enumerate() {
            line(at, &bounds[usize::from(is_open)], below);
        }
        let total = histogram.buckets.iter().map(|bucket| bucket.1).sum();
        line(CLASSIC_BOUNDS.len(), "+Inf", total);
        self.line(family, "_sum", labels, None, seconds(histogram.sum_ns));
        self.line(family, "_count", labels, None, int(total));
    }

    fn classic(&mut self, family: Family, labels: &[Label<'_>], histogram: ClassicRead<'_>) {
        for (bound, below) in histogram.buckets {
            let texts = [bound.to_string(), format!("{bound:?}")];
            self.line(family, "_bucket", labels, Some(self.bound(&texts)), int(*below));
        }
        self.line(family, "_bucket", labels, Some("+Inf"), int(histogram.count));
        self.line(family, "_sum", labels, None, float(histogram.sum));
        self.line(family, "_count", labels, None, int(histogram.count));
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
        let text = String::from_utf8(writer.finish()).unwrap();
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
        let text = String::from_utf8(writer.finish()).unwrap();
        let values: Vec<&str> = text.lines().skip(2).map(|l| l.rsplit(' ').next().unwrap()).collect();
        assert_eq!(values, ["NaN", "+Inf", "0.1", "1000000000000000000000", "-3"]);
    }

    #[test]
    fn open_metrics_names_counters_without_their_suffix_and_ends() {
        let mut writer = TextWriter::new(Flavour::OpenMetrics);
        let (counter, latency) = (writer.family(&signals::AUDIT_RECORDS), writer.family(&signals::COMMIT_SECONDS));
        writer.sample(counter, &[("queue", "q")], Value::Int(3));
        writer.classic(latency, &[], ClassicRead { buckets: &[(1.0, 2)], sum: 7.5, count: 3 });
        let text = String::from_utf8(writer.finish()).unwrap();
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
