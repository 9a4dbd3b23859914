//! What the process says about itself: lines on stderr, plain or JSON, a few of each cause a minute; spans for a collector.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larum_aggregate::time::SECOND_NS;
use larum_export::otlp::Telemetry;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::clock::now_ns;

/// Target of spans; nothing of it goes to stderr.
pub const SPANS: &str = "larum::span";
/// Lines of one cause in a minute; further ones are held back and counted.
const LINES_PER_MINUTE: u32 = 10;
const MINUTE_NS: i64 = 60 * SECOND_NS;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

/// Begins to write lines, and to make spans where there is somebody to take them. Call once.
pub fn start(format: LogFormat, telemetry: Option<&Telemetry>) {
    let limiter = Arc::new(Limiter::default());
    let spans_off = |filter: EnvFilter| match format!("{SPANS}=off").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    };
    let level = EnvFilter::try_from_env("LARUM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = spans_off(level).and(Limited(limiter.clone()));
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Clean(io::stderr())).with_target(false);
    let lines = match format {
        LogFormat::Plain => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = telemetry.map(|telemetry| {
        let only_spans = Targets::new().with_target(SPANS, LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracer(telemetry.tracer())
            .with_filter(only_spans)
    });
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).init();
    let reporter = std::thread::Builder::new().name("held-back-lines".to_string());
    let reporting = reporter.spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            limiter.report();
        }
    });
    if let Err(error) = reporting {
        tracing::warn!(%error, "lines that are held back will not be told of");
    }
}

/// File and line.
type Place = (&'static str, u32);

/// Counts lines by their cause, the place in the code that writes them.
#[derive(Debug, Default)]
struct Limiter {
    causes: Mutex<HashMap<Place, Cause>>,
}

#[derive(Debug)]
struct Cause {
    began_ns: i64,
    lines: u32,
    held_back: u64,
}

impl Limiter {
    /// Whether one more line of a cause is written.
    fn admits(&self, place: Place, now_ns: i64) -> bool {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = causes.entry(place).or_insert(Cause { began_ns: now_ns, lines: 0, held_back: 0 });
        if now_ns - cause.began_ns >= MINUTE_NS && cause.held_back == 0 {
            (cause.began_ns, cause.lines) = (now_ns, 0);
        }
        cause.lines += 1;
        let admits = cause.lines <= LINES_PER_MINUTE;
        cause.held_back += u64::from(!admits);
        admits
    }

    /// Says how many lines were held back of causes whose minute is over.
    fn report(&self) {
        for ((file, line), held_back) in self.take_held_back(now_ns()) {
            let place = format!("{file}:{line}");
            tracing::warn!(place, held_back, "further lines of this cause were held back");
        }
    }

    fn take_held_back(&self, now_ns: i64) -> Vec<(Place, u64)> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let over = causes.iter_mut().filter(|(_, c)| c.held_back > 0 && now_ns - c.began_ns >= MINUTE_NS);
        over.map(|(place, cause)| {
            (cause.began_ns, cause.lines) = (now_ns, 0);
            (*place, std::mem::take(&mut cause.held_back))
        })
        .collect()
    }
}

struct Limited(Arc<Limiter>);

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        self.0.admits((metadata.file().unwrap_or(metadata.target()), metadata.line().unwrap_or(0)), now_ns())
    }
}

/// Lets no control character through but the line's end: what came from outside stays within its line.
struct Clean<W>(W);

impl<W: Write> Write for Clean<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let inside = text.strip_suffix('\n').unwrap_or(&text);
        let mut clean: String = inside.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if inside.len() < text.len() {
            clean.push('\n');
        }
        self.0.write_all(clean.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_no_control_characters() {
        let mut out = Vec::new();
        Clean(&mut out).write_all(b"a\x1b[31mb\nc\x07\xc2\x85d\n").unwrap();
        assert_eq!(out, b"a [31mb c  d\n");
    }

    #[test]
    fn a_cause_is_held_back_and_told_of_once() {
        let (limiter, line) = (Limiter::default(), ("here.rs", 7));
        let written = (0..25).filter(|second| limiter.admits(line, second * SECOND_NS)).count();
        assert_eq!(written, 10);
        assert!(limiter.take_held_back(59 * SECOND_NS).is_empty());
        assert!(!limiter.admits(line, 61 * SECOND_NS), "not before it was told");
        let told = limiter.take_held_back(62 * SECOND_NS);
        assert_eq!((told.len(), told[0].1), (1, 16));
        assert!(limiter.take_held_back(200 * SECOND_NS).is_empty());
        assert!(limiter.admits(line, 63 * SECOND_NS));
    }
}
