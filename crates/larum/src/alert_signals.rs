//! Signals of alerts: their states, and what they look at that is not shown otherwise.

use std::collections::BTreeMap;

use larum_aggregate::NameId;
use larum_alert::alerts::{Burns, OfSource};
use larum_alert::history::SPANS_S;
use larum_alert::lifecycle::Life;
use larum_alert::{Alerts, Catalogue, Instance, RuntimeAlerts};
use larum_view::{Label, Measure, Sink, SourceView, Value, View, signals};

use crate::notify::identity;

/// Most alerts whose state is shown each.
const SHOWN_MAX: usize = 1_000;
/// States as they are counted, and as numbers from 1 on.
const STATES: [&str; 3] = ["pending", "firing", "held_back"];

/// What signals of alerts are made of.
pub struct AlertSignals<'a> {
    pub view: &'a View,
    pub alerts: &'a Alerts,
    pub runtime: &'a RuntimeAlerts,
    pub catalogue: &'a Catalogue,
    /// Wall clock, Unix ns.
    pub now_ns: i64,
}

/// The place in [`STATES`].
fn state(instance: &Instance) -> usize {
    match (instance.fires(), instance.held_back) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }
}

fn all<K: Ord>(life: &Life<K>) -> impl Iterator<Item = (&Instance, bool)> {
    let storms = life.storms.values().map(|storm| (storm, true));
    life.instances.values().map(|instance| (instance, false)).chain(storms)
}

impl AlertSignals<'_> {
    /// Shows all of them.
    pub fn visit(&self, sink: &mut impl Sink) {
        self.states(sink);
        self.coverage(sink);
        self.histories(sink);
    }

    fn states(&self, sink: &mut impl Sink) {
        let mut found: Vec<(&str, &Instance, bool)> = Vec::new();
        let mut held_back: BTreeMap<&str, u64> = BTreeMap::new();
        let is_read = |id| self.view.source(id).is_some_and(|source| !source.def.topics.is_empty());
        for (_, source) in self.alerts.sources().filter(|(id, _)| is_read(**id)) {
            for (name, life) in &source.alerts {
                found.extend(all(life).map(|(instance, is_storm)| (name.as_str(), instance, is_storm)));
                *held_back.entry(name).or_default() += life.held_back;
            }
        }
        for (name, life) in &self.runtime.alerts {
            found.extend(all(life).map(|(instance, is_storm)| (name.as_str(), instance, is_storm)));
        }
        let (each, counted, refused) =
            (sink.family(&signals::ALERT_STATE), sink.family(&signals::ALERTS), sink.family(&signals::ALERT_HELD_BACK));
        found.sort_by_key(|(_, instance, _)| state(instance) != 1);
        for (name, instance, is_storm) in found.iter().take(SHOWN_MAX) {
            let severity = self.catalogue.alert(name).map_or("", |alert| alert.severity.as_str());
            let texts: Vec<(&'static str, String)> = identity(&instance.texts).collect();
            let mut labels: Vec<Label<'_>> = vec![("alert", name), ("severity", severity)];
            if *is_storm || !instance.texts.tenant.is_empty() {
                labels.push(("scope", if *is_storm { "region" } else { "tenant" }));
            }
            labels.extend(texts.iter().map(|(label, text)| (*label, text.as_str())));
            sink.scope(&[], None);
            sink.sample(each, &labels, Value::Int(state(instance) as i64 + 1));
        }
        for alert in &self.catalogue.alerts {
            sink.scope(&[("alert", &alert.name)], None);
            for (at, name) in STATES.iter().enumerate() {
                let of_it = |(of, instance, _): &&(&str, &Instance, bool)| *of == alert.name && state(instance) == at;
                let count = found.iter().filter(of_it).count() as i64;
                let labels = [("severity", alert.severity.as_str()), ("state", name)];
                sink.sample(counted, &labels, Value::Int(count));
            }
            let count = held_back.get(alert.name.as_str()).copied().unwrap_or(0);
            sink.sample(refused, &[], Value::Int(count as i64));
        }
    }

    fn coverage(&self, sink: &mut impl Sink) {
        let all = self.catalogue.alerts.len();
        // A catalogue in which one lacks an owner, a dashboard or a runbook is refused.
        let counts = [("any", all), ("owner", all), ("dashboard", all), ("runbook", all)];
        let family = sink.family(&signals::CATALOGUE_ALERTS);
        sink.scope(&[], None);
        for (has, count) in counts.into_iter().chain([("scenario", self.catalogue.proven.len())]) {
            sink.sample(family, &[("has", has)], Value::Int(count as i64));
        }
    }

    fn histories(&self, sink: &mut impl Sink) {
        let (rates, burns) = (sink.family(&signals::REGION_EVENTS_RATE), sink.family(&signals::OBJECTIVE_BURN));
        for (id, of_source) in self.alerts.sources() {
            let Some(source) = self.view.source(*id) else { continue };
            // Like windows, they show the present or nothing.
            if source.def.topics.is_empty() || self.view.is_catching_up(source, self.now_ns) {
                continue;
            }
            let Some(end_s) = source.window_end_s() else { continue };
            let covered_from_ns = self.view.covered_from_ns(*id);
            let shown = Burns { of_source, catalogue: self.catalogue, end_s, covered_from_ns };
            self.rates(sink, (source, of_source), &shown, rates);
            let names: Vec<(u32, String)> = SPANS_S.iter().map(|span_s| (*span_s, span_name(*span_s))).collect();
            shown.visit(|tenant, region, objective, span_s, rate| {
                if !self.view.knows(tenant) || !self.view.knows(region) {
                    return;
                }
                let name = names.iter().find(|(of, _)| *of == span_s).map_or("", |(_, name)| name);
                let (tenant, region) = (self.view.name(tenant), self.view.name(region));
                sink.scope(&[("source", &source.def.name), ("objective", objective)], None);
                let labels = [("tenant", tenant), ("region", region), ("window", name)];
                sink.sample(burns, if tenant.is_empty() { &labels[1..] } else { &labels }, Value::Float(rate));
            });
        }
    }

    fn rates(
        &self,
        sink: &mut impl Sink,
        (source, of_source): (&SourceView, &OfSource),
        shown: &Burns<'_>,
        family: larum_view::Family,
    ) {
        for ((tenant, region), history) in of_source.histories.iter() {
            // What was given up since the last tick is shown no more.
            if *tenant != NameId::NONE || !self.view.knows(*region) {
                continue;
            }
            for measure in Measure::ALL {
                let longest_s = SPANS_S[SPANS_S.len() - 1];
                if history.sum(*measure, longest_s, shown.end_s) == 0 {
                    continue;
                }
                let labels = [("source", source.def.name.as_str()), ("region", self.view.name(*region))];
                sink.scope(&[labels[0], labels[1], ("measure", measure.as_str())], None);
                for span_s in SPANS_S {
                    let rate = history.sum(*measure, span_s, shown.end_s) as f64 / shown.span_s(span_s);
                    sink.sample(family, &[("window", &span_name(span_s))], Value::Float(rate));
                }
            }
        }
    }
}

fn span_name(span_s: u32) -> String {
    larum_aggregate::time::Window { span_s }.name()
}
