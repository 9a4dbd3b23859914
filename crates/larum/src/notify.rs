//! Who is told of what fires: looks at the states of alerts several times a second, judges Larum's own health, and hands
//! everything that holds to the Alertmanagers.
//!
//! What begins and ends while a backlog is read is not told as if it were now: while a source catches up, nothing of it is
//! announced but what began to fire while what was read was the present. What still holds at the end is announced then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use larum_aggregate::time::SECOND_NS;
use larum_alert::lifecycle::{Became, Number};
use larum_alert::{Alert, Catalogue, Instance, Texts};
use larum_export::alertmanager::{Message, Sender};
use larum_view::{SourceView, View};

use crate::annotate::{Facts, WORST_MAX, Wanted, annotations, facts, rfc3339};
use crate::clock::now_ns;
use crate::config::Config;
use crate::durable::Durable;
use crate::health::{Consumer, HealthWatch, Seen};
use crate::pages::LarumPages;

/// Time between looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between looks at Larum's own health, ns.
const HEALTH_EVERY_NS: i64 = SECOND_NS;
/// What is over is told for so long, ns: whoever did not hear of it may hear of it again.
const RESOLVED_FOR_NS: i64 = 15 * 60 * SECOND_NS;
/// Without further word what was told is over after so many times the time between tellings, and not before a restart's
/// alerts about Larum itself, whose `for` begins anew, can be told again.
const HORIZON: i64 = 5;
const HORIZON_MIN_S: i64 = 600;
/// Most new alerts at a look whose facts are looked up.
const FACTS_MAX: usize = 64;
/// Most alerts that are told at once.
const TOLD_MAX: usize = 10_000;

/// Who an alert is told as: its name, and what it is judged for.
type Who = (String, Texts, bool);

/// Something that fires, with a storm's worst tenants, and whether it may be announced.
struct Firing {
    instance: Instance,
    worst: Vec<(String, Number)>,
    may_be_told: bool,
}

/// An alert that was announced.
struct Told {
    instance: Instance,
    facts: Facts,
    worst: Vec<(String, Number)>,
    /// When it began to fire, Unix seconds.
    starts_s: u32,
    /// When it was over, Unix seconds, and when that was seen, Unix ns.
    over: Option<(u32, i64)>,
}

/// Tells until it is told to stop.
pub struct Notifier {
    config: Arc<Config>,
    pages: Arc<LarumPages>,
    sender: Sender,
    health: HealthWatch,
    told: BTreeMap<Who, Told>,
    /// When everything was told last, Unix ns.
    sent_ns: i64,
    looked_ns: i64,
    /// Number of the next transition that was not seen, and the number of sources that caught up.
    seen: (u64, usize),
    /// Since when something waits to be taken by anybody, Unix ns.
    asked_ns: Option<i64>,
}

impl Notifier {
    /// Starts it in a thread of its own.
    ///
    /// # Errors
    /// A file that the configuration names cannot be used, or there are no more threads.
    pub fn start(config: Arc<Config>, pages: Arc<LarumPages>, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let sender = config.alerts.receivers.sender().map_err(|why| anyhow::anyhow!("nobody can be alerted: {why}"))?;
        let mut notifier = Notifier {
            config,
            pages,
            sender,
            health: HealthWatch::default(),
            told: BTreeMap::new(),
            sent_ns: 0,
            looked_ns: 0,
            seen: (u64::MAX, 0),
            asked_ns: None,
        };
        std::thread::Builder::new().name("alerts".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                notifier.look(now_ns());
                std::thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(())
    }

    fn look(&mut self, now_ns: i64) {
        let mut changed = false;
        if now_ns - self.looked_ns >= HEALTH_EVERY_NS || now_ns < self.looked_ns {
            self.looked_ns = now_ns;
            changed |= self.judge_health(now_ns);
        }
        changed |= self.take_over(now_ns);
        let resend_ns = self.config.alerts.resend.as_nanos() as i64;
        if changed || now_ns - self.sent_ns >= resend_ns || now_ns < self.sent_ns {
            self.sent_ns = now_ns;
            self.told.retain(|_, told| told.over.is_none_or(|(_, seen_ns)| now_ns - seen_ns < RESOLVED_FOR_NS));
            let messages: Vec<Message> = self.told.iter().map(|(who, told)| self.message(who, told, now_ns)).collect();
            self.sender.tell(now_ns, &messages);
            if !messages.is_empty() {
                self.asked_ns.get_or_insert(now_ns);
            }
        }
        self.pages.handles.own.refresh_alerts(&self.sender.counts);
    }

    /// True when something of Larum's own began to fire or is over.
    fn judge_health(&mut self, now_ns: i64) -> bool {
        let seen = self.see(now_ns);
        let catalogue = self.config.alerts.catalogue.clone();
        let handles = &self.pages.handles;
        // In this order, as everywhere.
        let durable = handles.durable.read().unwrap_or_else(PoisonError::into_inner);
        let mut alerts = handles.runtime_alerts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        let mut tell = |alert: &Alert, instance: &Instance, became: Became| {
            changed = true;
            match became {
                Became::Firing => tracing::warn!(alert = alert.name, source = instance.texts.source, "an alert fires"),
                Became::Resolved => {
                    tracing::info!(alert = alert.name, source = instance.texts.source, "an alert is over")
                }
            }
        };
        self.health.judge((&durable.view, &seen), &catalogue, now_ns, &mut alerts, &mut tell);
        changed
    }

    fn see(&mut self, now_ns: i64) -> Seen {
        let taken_ns = self.sender.counts.taken_ns.load(Ordering::Relaxed);
        self.asked_ns = self.asked_ns.filter(|asked_ns| taken_ns < *asked_ns);
        let own = &self.pages.handles.own;
        let resend_ns = self.config.alerts.resend.as_nanos() as i64;
        let waits = self.asked_ns.is_some_and(|asked_ns| now_ns - asked_ns > 3 * resend_ns);
        let consumer = |(labels, state, lag_s): ([String; 4], i64, f64)| {
            let [source, group, topic, partition] = labels;
            Consumer { texts: Texts { source, group, topic, partition, ..Texts::default() }, state, lag_s }
        };
        Seen {
            commits_failing: own.store_stalled.get() != 0,
            hidden_share: self.pages.hidden_share(),
            admission_closed: own.admission_closed.get() != 0,
            pushes_failed: own.pushes_failed(),
            nobody_told: waits && !self.config.alerts.receivers.urls.is_empty(),
            consumers: own.consumers().into_iter().map(consumer).collect(),
        }
    }

    /// Takes over what fires. True when something was announced, or is over.
    fn take_over(&mut self, now_ns: i64) -> bool {
        let (handles, catalogue) = (self.pages.handles.clone(), self.config.alerts.catalogue.clone());
        let durable = handles.durable.read().unwrap_or_else(PoisonError::into_inner);
        let runtime = handles.runtime_alerts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = |source: &SourceView| !durable.view.is_catching_up(source, now_ns);
        let number = (durable.alerts.next_number(), durable.view.sources().filter(|source| is_live(source)).count());
        let is_due = number != self.seen || self.looked_ns == now_ns;
        if !is_due {
            return false;
        }
        self.seen = number;
        let mut firing: BTreeMap<Who, Firing> = BTreeMap::new();
        for (id, of_source) in durable.alerts.sources() {
            // What is read no more says nothing any more.
            let Some(source) = durable.view.source(*id).filter(|source| !source.def.topics.is_empty()) else {
                continue;
            };
            for (name, life) in &of_source.alerts {
                for instance in life.firing() {
                    let may_be_told = is_live(source) || began_live(&durable.view, source, instance);
                    let worst = life.worst(&instance.texts.region, if instance.tenants > 0 { WORST_MAX } else { 0 });
                    let worst = worst.into_iter().map(|(tenant, value)| (tenant.to_string(), Number::of(value)));
                    let who = (name.clone(), instance.texts.clone(), instance.tenants > 0);
                    firing.insert(who, Firing { instance: instance.clone(), worst: worst.collect(), may_be_told });
                }
            }
        }
        for (name, life) in &runtime.alerts {
            for instance in life.firing() {
                let of_it = Firing { instance: instance.clone(), worst: Vec::new(), may_be_told: true };
                firing.insert((name.clone(), instance.texts.clone(), false), of_it);
            }
        }
        drop(runtime);
        self.compare(&durable, &catalogue, firing, now_ns)
    }

    fn compare(
        &mut self,
        durable: &Durable,
        catalogue: &Catalogue,
        firing: BTreeMap<Who, Firing>,
        now_ns: i64,
    ) -> bool {
        let mut changed = false;
        for (who, told) in &mut self.told {
            match firing.get(who) {
                Some(_) => {}
                None if told.over.is_none() => {
                    let clock_s = clock_s(&durable.view, &who.1.source).unwrap_or((now_ns / SECOND_NS) as u32);
                    told.over = Some((clock_s.max(told.starts_s), now_ns));
                    changed = true;
                }
                None => {}
            }
        }
        let mut new = Vec::new();
        let room = TOLD_MAX.saturating_sub(self.told.len());
        for (who, Firing { instance, worst, may_be_told }) in firing {
            let starts_s = instance.fired_s.unwrap_or(instance.since_s);
            match self.told.get_mut(&who) {
                // It goes on: what is said about it keeps up.
                Some(told) if told.over.is_none() && told.starts_s == starts_s => {
                    (told.instance, told.worst) = (instance, worst);
                }
                _ if may_be_told && new.len() < room && catalogue.alert(&who.0).is_some() => {
                    new.push((who, Told { instance, worst, starts_s, over: None, facts: Facts::default() }));
                }
                _ => {}
            }
        }
        if new.is_empty() {
            return changed;
        }
        let wanted: Vec<Wanted> =
            new.iter().map(|((name, texts, _), told)| wanted(catalogue.alert(name), texts, told)).collect();
        let few = &wanted[..wanted.len().min(FACTS_MAX)];
        let mut found = facts(&durable.view, &durable.samples, few);
        found.resize_with(wanted.len(), Facts::default);
        for ((who, mut told), facts) in new.into_iter().zip(found) {
            told.facts = facts;
            self.told.insert(who, told);
        }
        true
    }

    fn message(&self, (name, texts, is_storm): &Who, told: &Told, now_ns: i64) -> Message {
        let config = &self.config.alerts;
        let now_s = now_ns / SECOND_NS;
        let horizon_s = (HORIZON * config.resend.as_secs().max(1) as i64).max(HORIZON_MIN_S);
        let ends_s = match told.over {
            // Its clock may be ahead of ours by a little; what lies ahead is not over.
            Some((over_s, _)) => i64::from(over_s).min(now_s),
            None => now_s + horizon_s,
        };
        let mut labels = BTreeMap::from([("alertname", name.clone())]);
        let mut said = BTreeMap::new();
        if let Some(alert) = config.catalogue.alert(name) {
            labels.insert("severity", alert.severity.as_str().to_string());
            labels.insert("team", alert.owner.clone());
            said = annotations(alert, &told.instance, &told.worst, &told.facts, config);
        }
        labels.extend(identity(texts));
        let is_of_tenant = !texts.tenant.is_empty();
        if *is_storm || is_of_tenant {
            labels.insert("scope", if *is_storm { "region" } else { "tenant" }.to_string());
        }
        Message {
            labels,
            annotations: said,
            starts_at: rfc3339(i64::from(told.starts_s).min(ends_s)),
            ends_at: rfc3339(ends_s),
            generator_url: config.external_url.clone(),
        }
    }
}

/// What an instance is judged for, as labels.
pub fn identity(texts: &Texts) -> impl Iterator<Item = (&'static str, String)> {
    let Texts { source, tenant, region, queue, group, topic, partition } = texts.clone();
    let all = [
        ("source", source),
        ("tenant", tenant),
        ("region", region),
        ("queue", queue),
        ("group", group),
        ("topic", topic),
        ("partition", partition),
    ];
    all.into_iter().filter(|(_, text)| !text.is_empty())
}

fn wanted(alert: Option<&Alert>, texts: &Texts, told: &Told) -> Wanted {
    let Texts { source, tenant, region, .. } = texts.clone();
    Wanted {
        source,
        tenant,
        region,
        since_s: told.instance.since_s,
        kinds: alert.map(Alert::kinds).unwrap_or_default(),
    }
}

/// Whether an instance began to fire while what was read of its source was the present.
fn began_live(view: &View, source: &SourceView, instance: &Instance) -> bool {
    let current_ns = view.served_of(source).map(|partition| partition.current_ns.unwrap_or(0)).min();
    let fired_ns = i64::from(instance.fired_s.unwrap_or(u32::MAX)) * SECOND_NS;
    current_ns.is_some_and(|current_ns| fired_ns <= current_ns)
}

fn clock_s(view: &View, source: &str) -> Option<u32> {
    view.sources().find(|known| known.def.name == source).and_then(|source| source.tick)
}
