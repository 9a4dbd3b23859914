//! What the HTTP endpoint shows: one cut of the durable state, and own metrics.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use larum_aggregate::time::{SECOND_NS, Window};
use larum_export::http::Pages;
use larum_export::{TextWriter, own};
use larum_view::Reading;

use crate::clock::now_ns;
use crate::state::Handles;

/// Without a round of the committer for so long, the process is not well, ns.
const HEARTBEAT_NS: i64 = 60 * SECOND_NS;

/// The pages of a running engine.
pub struct LarumPages {
    /// What the engine shares.
    pub handles: Handles,
    /// Windows that are exposed as gauges.
    pub windows: Vec<Window>,
}

impl Pages for LarumPages {
    fn metrics(&self) -> Vec<u8> {
        let began_ns = now_ns();
        let mut writer = TextWriter::default();
        {
            let durable = self.handles.durable.read().unwrap_or_else(PoisonError::into_inner);
            Reading { view: &durable.view, now_ns: began_ns, windows: &self.windows }.visit(&mut writer);
        }
        let mut text = writer.finish();
        let registry = self.handles.registry.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.handles.own.refresh(&self.handles.shared, registry.as_deref());
        self.handles.own.scrape_seconds.observe((now_ns() - began_ns) as f64 / SECOND_NS as f64);
        own::write(&self.handles.own.registry, &mut text);
        text
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
