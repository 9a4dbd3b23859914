//! Samples as Prometheus text format 0.0.4.

use std::io::Write;

use larum_aggregate::histogram::{BUCKETS_PER_OCTAVE, Bucket, ONE_SECOND_OFFSET};
use larum_view::signals::SignalType;
use larum_view::{HistogramRead, Label, Signal, Sink, Value};

/// Classic buckets end at these powers of two seconds: 2^-10 (about 1 ms) to 2^7 (128 s). Each is a bound of the layout,
/// so they are exact.
const CLASSIC_POWERS: std::ops::RangeInclusive<i32> = -10..=7;

/// Writes samples into a buffer.
#[derive(Debug, Default)]
pub struct TextWriter {
    text: Vec<u8>,
    name: &'static str,
    /// Header of the family, written with its first sample.
    header: Option<Signal>,
}

impl TextWriter {
    /// A writer that expects about so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        TextWriter { text: Vec::with_capacity(bytes), ..TextWriter::default() }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.text
    }

    fn begin(&mut self) {
        if let Some(signal) = self.header.take() {
            let kind = match signal.kind {
                // Linters keep the label `quantile` for summaries, which this is not, and for what has no type.
                SignalType::Gauge if signal.labels.contains(&"quantile") => "untyped",
                SignalType::Counter => "counter",
                SignalType::Gauge => "gauge",
                SignalType::Histogram => "histogram",
            };
            // Names and help texts are ours and need no escape.
            let _ = write!(self.text, "# HELP {0} {1}\n# TYPE {0} {kind}\n", signal.name, signal.help);
        }
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], le: Option<&str>, value: impl FnOnce(&mut Vec<u8>)) {
        self.text.extend_from_slice(self.name.as_bytes());
        self.text.extend_from_slice(suffix.as_bytes());
        let mut open = b'{';
        for (name, text) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            self.text.push(open);
            open = b',';
            self.text.extend_from_slice(name.as_bytes());
            self.text.extend_from_slice(b"=\"");
            escape(&mut self.text, text);
            self.text.push(b'"');
        }
        if open == b',' {
            self.text.push(b'}');
        }
        self.text.push(b' ');
        value(&mut self.text);
        self.text.push(b'\n');
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
    fn family(&mut self, signal: &Signal) {
        self.name = signal.name;
        self.header = Some(*signal);
    }

    fn sample(&mut self, labels: &[Label<'_>], value: Value) {
        self.begin();
        self.line("", labels, None, |out| match value {
            Value::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            Value::Float(value) => float(value)(out),
        });
    }

    fn histogram(&mut self, labels: &[Label<'_>], histogram: HistogramRead<'_>) {
        self.begin();
        let (mut below, mut at) = (0, 0);
        for power in CLASSIC_POWERS {
            while let Some((_, count)) = histogram.buckets.get(at).filter(|b| b.0 <= last_bucket(power)) {
                below += count;
                at += 1;
            }
            self.line("_bucket", labels, Some(&f64::exp2(f64::from(power)).to_string()), int(below));
        }
        let total = below + histogram.buckets[at..].iter().map(|b| b.1).sum::<u64>();
        self.line("_bucket", labels, Some("+Inf"), int(total));
        self.line("_sum", labels, None, seconds(histogram.sum_ns));
        self.line("_count", labels, None, int(total));
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
        writer.family(&signals::LOGIN_LATENCY);
        let buckets = [(0, 1), (bucket_of(500_000_000), 2), (bucket_of(500_000_001), 4), (bucket_of(u64::MAX), 8)];
        writer.histogram(
            &[("source", "s"), ("tenant", "a\"b\\c\nd")],
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
        writer.family(&signals::TICK);
        for value in [f64::NAN, f64::INFINITY, 0.1, 1e21] {
            writer.sample(&[], Value::Float(value));
        }
        writer.sample(&[], Value::Int(-3));
        let text = String::from_utf8(writer.finish()).unwrap();
        let values: Vec<&str> = text.lines().skip(2).map(|l| l.rsplit(' ').next().unwrap()).collect();
        assert_eq!(values, ["NaN", "+Inf", "0.1", "1000000000000000000000", "-3"]);
    }
}
