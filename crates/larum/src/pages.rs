//! What the HTTP endpoint shows: one cut of the durable state, and own metrics.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use larum_aggregate::time::{SECOND_NS, Window};
use larum_alert::Catalogue;
use larum_export::http::Pages;
use larum_export::otlp::{OtlpWriter, Queue};
use larum_export::{Flavour, Format, Page, ProtoWriter, TextWriter, helpers, own, writers};
use larum_view::{Exposure, Helpers, Reading, Shown, Sink, View};

use crate::alert_signals::AlertSignals;
use crate::clock::now_ns;
use crate::durable::Durable;
use crate::logging::SPANS;
use crate::state::Handles;

/// Without a round of the committer for so long, the process is not well, ns.
const HEARTBEAT_NS: i64 = 60 * SECOND_NS;

/// Time between plans of what is shown of each key, ns.
const PLAN_EVERY_NS: i64 = 30 * SECOND_NS;

/// The pages of a running engine.
pub struct LarumPages {
    /// What the engine shares.
    pub handles: Handles,
    /// Windows that are exposed as gauges.
    pub windows: Vec<Window>,
    /// Most sample lines of keys.
    pub series_max: u64,
    /// The plan of what is shown of each key, and when it was made, Unix ns.
    pub exposure: Mutex<Option<(i64, Arc<Exposure>)>>,
    /// What scrapes and pushes show of keys, kept from one to the next.
    pub shown: Mutex<Shown>,
    /// What scrapes are written with.
    pub writers: Writers,
    /// What is judged.
    pub catalogue: Arc<Catalogue>,
}

/// Writers for each format, whose memory is used again. Each of them writes a part of the keys.
pub struct Writers {
    text: Mutex<Vec<TextWriter>>,
    open_metrics: Mutex<Vec<TextWriter>>,
    protobuf: Mutex<Vec<ProtoWriter>>,
    /// Where there are pushes.
    otlp: Option<Mutex<Vec<OtlpWriter>>>,
    helpers: Option<Helpers>,
}

impl Writers {
    /// With one for pushes that come from `instance`.
    pub fn with_otlp(instance: &str) -> Self {
        let writers = writers(|| OtlpWriter::new(env!("CARGO_PKG_VERSION"), instance));
        Writers { otlp: Some(Mutex::new(writers)), ..Writers::default() }
    }
}

impl Default for Writers {
    fn default() -> Self {
        let text = |flavour| Mutex::new(writers(|| TextWriter::new(flavour)));
        let (prometheus, open) = (text(Flavour::Prometheus), text(Flavour::OpenMetrics));
        Writers {
            text: prometheus,
            open_metrics: open,
            protobuf: Mutex::new(writers(ProtoWriter::default)),
            otlp: None,
            helpers: helpers(),
        }
    }
}

impl LarumPages {
    /// The plan, made anew when it is old.
    fn exposure(&self, view: &View, now_ns: i64) -> Arc<Exposure> {
        let mut planned = self.exposure.lock().unwrap_or_else(PoisonError::into_inner);
        let before = planned.as_ref().map(|(_, exposure)| exposure.clone()).unwrap_or_default();
        match &*planned {
            Some((at_ns, exposure))
                if (0..PLAN_EVERY_NS).contains(&(now_ns - at_ns)) && !exposure.is_outgrown(view) =>
            {
                exposure.clone()
            }
            _ => {
                let exposure = Arc::new(Exposure::plan(view, &self.windows, self.series_max, &before));
                *planned = Some((now_ns, exposure.clone()));
                exposure
            }
        }
    }
}

impl LarumPages {
    /// One cut of the durable state and own metrics, as `writers` write them.
    fn written<S: Sink + Send, W>(&self, writers: &Mutex<Vec<S>>, finish: impl FnOnce(&mut [S]) -> W) -> W {
        let now_ns = now_ns();
        let mut sinks = writers.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let durable = self.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
            let exposure = self.exposure(&durable.view, now_ns);
            let Durable { view, exemplars, alerts, .. } = &*durable;
            let (windows, exposure) = (&*self.windows, &*exposure);
            let reading =
                Reading { view, exemplars, now_ns, windows, exposure, helpers: self.writers.helpers.as_ref() };
            reading.visit(&mut shown, &mut sinks);
            let runtime = self.handles.runtime_alerts.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(sink) = sinks.first_mut() else { return finish(&mut sinks) };
            AlertSignals { view, alerts, runtime: &runtime, catalogue: &self.catalogue, now_ns }.visit(sink);
        }
        let registry = self.handles.registry.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.handles.own.refresh(&self.handles.shared, registry.as_deref());
        sinks
            .iter_mut()
            .take(1)
            .for_each(|sink| own::visit(&self.handles.own.registry, self.handles.own.started_ns, sink));
        finish(&mut sinks)
    }
}

impl LarumPages {
    /// Share of keys that scrapes do not show, as last planned.
    pub fn hidden_share(&self) -> f64 {
        let planned = self.exposure.lock().unwrap_or_else(PoisonError::into_inner);
        planned.as_ref().map_or(0.0, |(_, exposure)| exposure.hidden_share())
    }

    /// One push: the same cut as a scrape would show.
    pub fn push(&self, queue: &Queue) -> Vec<larum_export::otlp::Body> {
        let _span = tracing::info_span!(target: SPANS, "push").entered();
        self.handles.own.refresh_otlp(&queue.counts);
        let Some(writers) = &self.writers.otlp else { return Vec::new() };
        let now_ns = now_ns();
        writers.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(|writer| writer.begin(now_ns));
        self.written(writers, OtlpWriter::finish)
    }
}

impl Pages for LarumPages {
    fn metrics(&self, format: Format) -> Page {
        let _span = tracing::info_span!(target: SPANS, "scrape", ?format).entered();
        let began_ns = now_ns();
        let body = match format {
            Format::Text => self.written(&self.writers.text, TextWriter::finish),
            Format::OpenMetrics => self.written(&self.writers.open_metrics, TextWriter::finish),
            Format::Protobuf => self.written(&self.writers.protobuf, ProtoWriter::finish),
        };
        self.handles.own.scrape_seconds.observe((now_ns() - began_ns) as f64 / SECOND_NS as f64);
        body
    }

    fn ready(&self) -> Result<(), String> {
        let targets = self.handles.targets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(targets) = targets else { return Err("not ready: the broker has not answered yet".into()) };
        let durable = self.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
        let missing = |(id, end): &(_, i64)| durable.view.partition(*id).map_or(0, |p| (end - p.next).max(0));
        match targets.iter().map(missing).sum::<i64>() {
            0 => Ok(()),
            left => Err(format!("not ready: {left} records to read until the end of the log that was seen at start")),
        }
    }

    fn healthy(&self) -> Result<(), String> {
        let round_ns = self.handles.shared.round_ns.load(Ordering::Relaxed);
        if round_ns != 0 && now_ns() - round_ns > HEARTBEAT_NS {
            return Err("the committer makes no more rounds; restart the process".into());
        }
        Ok(())
    }
}
