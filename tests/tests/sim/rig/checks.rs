//! What the rig compares with the naive recount.

use std::collections::{BTreeMap, BTreeSet};

use larum_aggregate::change::CHANGES_MAX;
use larum_aggregate::time::{DISTINCT_WINDOW, WINDOWS, Window};
use larum_aggregate::{Change, Distinct, Graces, NameId};
use larum_event::{CodeParts, Kind, Outcome};
use larum_tests::recount::{Ev, Judged, Partition, Sets, Totals};
use larum_view::{AuditQueue, Counted, Counter, Exemplars, Logins, View, Wanted};

use super::{Rig, SOURCE};

impl Rig {
    /// Compares what is visible with the recount of exactly its offsets; nothing may have gone back.
    pub(super) fn check(&mut self, thorough: bool, ticked: bool) -> Result<(), String> {
        let durable = self.durable.clone();
        let durable = durable.read().unwrap();
        let view = &durable.view;
        let next: Vec<i64> = view.partitions().map(|p| p.visible_next).collect();
        if next.len() != self.log.len() || next.iter().zip(&self.seen.1).any(|(now, before)| now < before) {
            return Err(format!("visible offsets went back: {:?} to {next:?}", self.seen.1));
        }
        let totals = totals(view);
        for (labels, before) in &self.seen.0 {
            if totals.get(labels).is_none_or(|now| now < before) {
                return Err(format!("{labels:?} went back from {before} to {:?}", totals.get(labels)));
            }
        }
        if thorough {
            self.recount(view, &next, &totals)?;
            self.recount_exemplars(view, &durable.exemplars, &next)?;
        }
        if ticked {
            self.check_ticks(view, &next)?;
        }
        self.seen = (totals, next);
        Ok(())
    }

    fn recount(&self, view: &View, next: &[i64], totals: &Totals) -> Result<(), String> {
        let mut want = Totals::new();
        let mut want_latencies = (0, 0);
        for (partition, (next, view)) in self.log.iter().zip(next.iter().zip(view.partitions())) {
            partition.add_totals(*next, &mut want);
            let sums = partition.latencies(*next);
            want_latencies = (want_latencies.0 + sums.0, want_latencies.1 + sums.1);
            let t = &view.tally;
            let records = [t.decoded, t.rejected_total(), t.skipped, t.absent];
            same("records", records, partition.records(*next))?;
            same("timings", [t.on_time, t.late, t.skewed], partition.timings(&partition.judge(), *next))?;
            same("conserved", view.is_conserved(), true)?;
        }
        same("totals", self.comparable(totals), self.comparable(&want))?;
        let (mut count, mut sum_ns) = (0, 0);
        view.scan(&[], |counted| {
            for (_, buckets, its_sum_ns) in counted.counts.histograms().iter() {
                count += buckets.total();
                sum_ns += its_sum_ns;
            }
        });
        same("latencies", (count, sum_ns), want_latencies)?;
        self.recount_changes(view, next)?;
        for (key, kept, fresh) in view.told_twice(SOURCE) {
            same(&format!("sums of key {key} kept from tick to tick"), kept, fresh)?;
        }
        self.compare_scrape(view)?;
        self.recount_windows(view, next)
    }

    /// What scrapes keep from one to the next is what a pass over everything finds.
    fn compare_scrape(&self, view: &View) -> Result<(), String> {
        let windows = [WINDOWS[1], WINDOWS[3]];
        let (mut kept, mut fresh) = (Vec::new(), Vec::new());
        let mut scraped = self.scraped.lock().unwrap();
        // Windows by code are those of the sums kept from tick to tick.
        let of = |counted: &Counted<'_>| {
            let of_windows: Vec<_> = counted.counts.windows().iter().map(|window| window.histograms.clone()).collect();
            let codes: Vec<_> = counted.counts.codes().collect();
            (counted.key.def.id, codes, counted.counts.histograms().clone(), of_windows)
        };
        scraped.visit(view, &windows, |_| Wanted::All, |counted| kept.push(of(counted)));
        view.scan(&windows, |counted| fresh.push(of(counted)));
        same("counts kept from scrape to scrape", kept, fresh)
    }

    /// Every exemplar is the trace of a visible request that was slow or failed, under its own key; and each tenant that
    /// had one in the last hour shows one.
    fn recount_exemplars(&self, view: &View, exemplars: &Exemplars, next: &[i64]) -> Result<(), String> {
        let telling: BTreeMap<u128, (i64, &Ev)> = (self.log.iter().zip(next))
            .flat_map(|(partition, next)| partition.telling(*next))
            .map(|(trace, tick, event)| (trace, (tick, event)))
            .collect();
        let mut tenants = BTreeSet::new();
        for key in view.keys() {
            for exemplar in exemplars.of(key.def.source, key.def.id) {
                let trace = u128::from_be_bytes(exemplar.trace_id);
                let Some((_, event)) = telling.get(&trace) else { return Err(format!("whose is {exemplar:?}?")) };
                same("an exemplar's latency", Some(exemplar.latency_ns), event.latency_ns)?;
                let tenant = view.name(key.def.tenant);
                if key.def.tenant != NameId::OTHER {
                    same("an exemplar's tenant", tenant, &event.tenant)?;
                }
                tenants.insert(event.tenant.as_str());
            }
        }
        let Some(tick) = view.source(SOURCE).and_then(|source| source.tick) else { return Ok(()) };
        let recent = telling.values().filter(|(at, _)| *at > i64::from(tick) - 3600);
        // Minted tenants share the keys of `__other__`.
        let known = recent.map(|(_, event)| event.tenant.as_str()).filter(|tenant| !tenant.starts_with("minted"));
        match { known }.find(|tenant| !self.minted && !tenants.contains(tenant)) {
            Some(tenant) => Err(format!("{tenant} shows no exemplar at tick {tick}")),
            None => Ok(()),
        }
    }

    /// The timeline holds every change that is visible, in order of time.
    fn recount_changes(&self, view: &View, next: &[i64]) -> Result<(), String> {
        let mut want: Vec<(i64, usize, i64)> = Vec::new();
        for (at, (partition, next)) in self.log.iter().zip(next).enumerate() {
            want.extend(partition.changes(*next).into_iter().map(|(at_ns, offset)| (at_ns, at, offset)));
        }
        want.sort_unstable();
        want.drain(..want.len().saturating_sub(CHANGES_MAX));
        let changes = view.source(SOURCE).map_or(&[][..], |source| &source.changes);
        let place = |change: &Change| (change.place.at_ns, change.place.partition.0 as usize, change.place.offset);
        same("changes", changes.iter().map(place).collect(), want)
    }

    /// What audit queues show at a tick, if every tick was read before it was applied.
    pub(super) fn check_audit(&mut self, tick: u32) -> Result<(), String> {
        let events: Vec<_> = self.log.iter().flat_map(Partition::audit).collect();
        let want = larum_tests::audit::recount(&events, i64::from(tick), i64::from(Graces::default().default_s));
        want.values().flat_map(|shown| shown.iter().enumerate()).for_each(|(at, n)| self.audited[at] += n);
        let durable = self.durable.read().unwrap();
        let view = &durable.view;
        let Some(source) = view.source(SOURCE) else { return Ok(()) };
        let shown = |queue: &AuditQueue| {
            let (state, c) = (queue.state(), queue.counts);
            [state.backlog, state.missing, c.gaps, c.recovered, c.repeated, c.epochs, c.untracked, c.skewed]
        };
        let got = source.queues.iter().map(|(name, queue)| (view.name(*name).to_string(), shown(queue))).collect();
        same(&format!("audit queues at tick {tick}"), got, want)
    }

    fn recount_windows(&self, view: &View, next: &[i64]) -> Result<(), String> {
        let Some(end_s) = view.source(SOURCE).and_then(|s| s.window_end_s()) else { return Ok(()) };
        let judged: Vec<Vec<(i64, Judged)>> = self.log.iter().map(Partition::judge).collect();
        for window in WINDOWS {
            let span_s = i64::from(window.span_s);
            let step_s = if span_s <= 300 {
                10
            } else if span_s <= 3600 {
                60
            } else {
                600
            };
            let start_s = (i64::from(end_s) + 1 - span_s) / step_s * step_s;
            let mut want = Totals::new();
            for ((partition, judged), next) in self.log.iter().zip(&judged).zip(next) {
                partition.add_window(judged, *next, start_s, i64::from(end_s), &mut want);
            }
            let (mut got, mut of_logins) = (Totals::new(), Ok(()));
            view.scan(&[window], |counted| {
                let mut logins = Logins::default();
                for (code, count) in &counted.counts.windows()[0].codes {
                    *got.entry(labels(view, counted.key, *code)).or_default() += count;
                    let parts = code.parts();
                    let ended = match parts.outcome {
                        Outcome::Success => Some(&mut logins.succeeded),
                        Outcome::Failure => Some(&mut logins.failed),
                        Outcome::Denied => Some(&mut logins.denied),
                        Outcome::Challenge => None,
                    };
                    if parts.kind == Kind::Login {
                        ended.into_iter().for_each(|ended| *ended += count);
                        logins.all += count;
                    }
                }
                // What scrapes show is kept from tick to tick.
                if of_logins.is_ok() {
                    of_logins = same("logins of a window", counted.key.logins(window), logins);
                }
            });
            of_logins?;
            same(&format!("window {}", window.name()), self.comparable(&got), self.comparable(&want))?;
            if window <= DISTINCT_WINDOW && !self.minted {
                let mut sets = Sets::new();
                for ((partition, judged), next) in self.log.iter().zip(&judged).zip(next) {
                    partition.add_distinct(judged, *next, start_s, i64::from(end_s), &mut sets);
                }
                check_distinct(view, window, end_s, &sets)?;
            }
        }
        Ok(())
    }

    /// Right after a tick was applied, everything durable up to it is visible.
    fn check_ticks(&self, view: &View, next: &[i64]) -> Result<(), String> {
        let Some(tick) = view.source(SOURCE).and_then(|s| s.tick) else { return Ok(()) };
        for ((partition, next), view) in self.log.iter().zip(next).zip(view.partitions()) {
            let waiting = partition.judge().into_iter().find(|j| j.0 >= *next && j.0 < view.next);
            if let Some((offset, judged)) = waiting.filter(|(_, j)| j.tick <= i64::from(tick)) {
                return Err(format!("offset {offset} of tick {} is not visible at tick {tick}", judged.tick));
            }
        }
        Ok(())
    }

    /// With minted names over the budget, tenants are not told apart.
    fn comparable(&self, totals: &Totals) -> Totals {
        if !self.minted {
            return totals.clone();
        }
        let mut sums = Totals::new();
        for (labels, count) in totals {
            *sums.entry(labels[1..].to_vec()).or_default() += count;
        }
        sums
    }
}

fn labels(view: &View, key: &larum_view::KeyView, code: larum_event::Code) -> Vec<String> {
    let CodeParts { kind, op, outcome, reason, hop } = code.parts();
    let [tenant, region, service] = [key.def.tenant, key.def.region, key.def.component].map(|name| view.name(name));
    let hop = hop.map_or("", |hop| hop.as_str());
    let (op, outcome, reason) = (op.as_str(), outcome.as_str(), reason.as_str());
    match kind {
        Kind::Login => [tenant, region, "login", outcome, reason].map(String::from).to_vec(),
        Kind::Permission => {
            [tenant, region, &format!("permission {service} {op} {hop}"), outcome, ""].map(String::from).to_vec()
        }
        Kind::Change => [tenant, region, &format!("change {service} {op}"), "", ""].map(String::from).to_vec(),
        Kind::Audit => ["", region, &format!("audit {service}"), "", ""].map(String::from).to_vec(),
        Kind::Token => [tenant, region, op, outcome, reason].map(String::from).to_vec(),
    }
}

fn totals(view: &View) -> Totals {
    let mut totals = Totals::new();
    view.scan(&[], |counted| {
        for (code, count) in counted.counts.codes() {
            *totals.entry(labels(view, counted.key, code)).or_default() += count;
        }
    });
    totals
}

pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}:\ngot  {got:?}\nwant {want:?}")) }
}

/// Distinct accounts and sources equal the recount; large sets are estimated.
fn check_distinct(view: &View, window: Window, end_s: u32, want: &Sets) -> Result<(), String> {
    let mut counter = Counter::default();
    for key in view.keys() {
        let got = key.distinct(window, end_s, &mut counter).unwrap_or_default();
        for (what, name) in [(Distinct::Accounts, "accounts"), (Distinct::Sources, "sources")] {
            let labels = [view.name(key.def.tenant), view.name(key.def.region), name].map(String::from);
            let is_login = key.def.component == NameId::NONE;
            let want = want.get(&labels).filter(|_| is_login).map_or(0, |set| set.len() as u64);
            let got = got[what as usize];
            let error_max = if want <= 64 { 0 } else { want / 4 };
            if got.abs_diff(want) > error_max {
                return Err(format!("{labels:?} in {}: {got}, recounted {want}", window.name()));
            }
        }
    }
    Ok(())
}
