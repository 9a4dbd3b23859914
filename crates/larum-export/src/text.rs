//! Samples as Prometheus text format 0.0.4.

use std::io::Write;
use std::sync::LazyLock;

use larum_aggregate::histogram::{BUCKETS_PER_OCTAVE, Bucket, ONE_SECOND_OFFSET};
use larum_view::signals::SignalType;
use larum_view::{Family, HistogramRead, Label, Signal, Sink, Value};

/// Classic buckets end at these powers of two seconds: 2^-10 (about 1 ms) to 2^7 (128 s). Each is a bound of the layout,
/// so they are exact.
const CLASSIC_POWERS: std::ops::RangeInclusive<i32> = -10..=7;

/// These powers with their bounds as text, which are written again and again.
static CLASSIC_BOUNDS: LazyLock<Vec<(i32, String)>> =
    LazyLock::new(|| CLASSIC_POWERS.map(|power| (power, f64::exp2(f64::from(power)).to_string())).collect());

/// Writes samples, a buffer for each family.
#[derive(Debug, Default)]
pub struct TextWriter {
    families: Vec<FamilyText>,
    /// Labels that every sample begins with, as text.
    scope: Vec<u8>,
}

#[derive(Debug)]
struct FamilyText {
    signal: Signal,
    text: Vec<u8>,
}

impl TextWriter {
    /// What was written, family by family; those without samples are left out.
    pub fn finish(self) -> Vec<u8> {
        let size: usize = self.families.iter().map(|family| family.text.len() + 256).sum();
        let mut out = Vec::with_capacity(size);
        for FamilyText { signal, text } in self.families.iter().filter(|family| !family.text.is_empty()) {
            let kind = match signal.kind {
                // Linters keep the label `quantile` for summaries, which this is not, and for what has no type.
                SignalType::Gauge if signal.labels.contains(&"quantile") => "untyped",
                SignalType::Counter => "counter",
                SignalType::Gauge => "gauge",
                SignalType::Histogram => "histogram",
            };
            // Names and help texts are ours and need no escape. Writing to memory does not fail.
            let _ = write!(out, "# HELP {0} {1}\n# TYPE {0} {kind}\n", signal.name, signal.help);
            out.extend_from_slice(text);
        }
        out
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

/// Last bucket at or below 2^`power` seconds.
fn last_bucket(power: i32) -> Bucket {
    (power * BUCKETS_PER_OCTAVE + ONE_SECOND_OFFSET - 1) as Bucket
}

impl Sink for TextWriter {
    fn family(&mut self, signal: &Signal) -> Family {
        self.families.push(FamilyText { signal: *signal, text: Vec::new() });
        Family(self.families.len() - 1)
    }

    fn scope(&mut self, labels: &[Label<'_>]) {
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
        let (mut below, mut at) = (0, 0);
        for (power, bound) in CLASSIC_BOUNDS.iter() {
            while let Some((_, count)) = histogram.buckets.get(at).filter(|b| b.0 <= last_bucket(*power)) {
                below += count;
                at += 1;
            }
            self.line(family, "_bucket", labels, Some(bound), int(below));
        }
        let total = below + histogram.buckets[at..].iter().map(|b| b.1).sum::<u64>();
        self.line(family, "_bucket", labels, Some("+Inf"), int(total));
        self.line(family, "_sum", labels, None, seconds(histogram.sum_ns));
        self.line(family, "_count", labels, None, int(total));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::histogram::bucket_of;
    use larum_view::signals;

    #[test]
    fn samples_and_histograms_in_text() {
        let mut writer = TextWriter::default();
        writer.family(&signals::TICK);
        let family = writer.family(&signals::LOGIN_LATENCY);
        writer.scope(&[("source", "s")]);
        let buckets = [(0, 1), (bucket_of(500_000_000), 2), (bucket_of(500_000_001), 4), (bucket_of(u64::MAX), 8)];
        writer.histogram(
            family,
            &[("tenant", "a\"b\\c\nd")],
            HistogramRead { buckets: &buckets, sum_ns: 1_500_000_000 },
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
}
