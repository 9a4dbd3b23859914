//! One alert's life: pending while its condition holds for too short a time, firing, resolved. Storms: where it holds for
//! many tenants of a region, one alert for the region fires in place of one for each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::judge::{Found, Unit};

/// Where it holds for more tenants of a region, the region's alert fires.
pub const STORM_TENANTS: usize = 20;
/// Most instances of an alert; what holds beyond is counted as held back.
pub const INSTANCES_MAX: usize = 20_000;

/// A number that can be compared and stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number(u64);

impl Number {
    /// Holds a value.
    pub fn of(value: f64) -> Number {
        Number(value.to_bits())
    }

    /// The value.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// What an instance is judged for, in the texts that it is told with; empty ones do not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Texts {
    /// Its source, or none.
    pub source: String,
    /// Its tenant.
    pub tenant: String,
    /// Its region.
    pub region: String,
    /// Its audit queue.
    pub queue: String,
    /// Its consumer group.
    pub group: String,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: String,
}

/// An alert for one of its subjects, from the first tick at which its condition holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What it is judged for.
    pub texts: Texts,
    /// It holds since then, Unix seconds.
    pub since_s: u32,
    /// It held last then.
    pub held_s: u32,
    /// It fires since then.
    pub fired_s: Option<u32>,
    /// It would fire, but the region's alert does in its place.
    pub held_back: bool,
    /// What was found when it held last.
    pub value: Number,
    /// What is usual.
    pub usual: Option<Number>,
    /// Of what.
    pub unit: Unit,
    /// Tenants that it stands for: 0 but for a region's storm.
    pub tenants: u32,
}

impl Instance {
    fn new(texts: Texts, at_s: u32, found: Found) -> Instance {
        let mut instance = Instance {
            texts,
            since_s: at_s,
            held_s: at_s,
            fired_s: None,
            held_back: false,
            value: Number::default(),
            usual: None,
            unit: found.unit,
            tenants: 0,
        };
        instance.hold(at_s, found);
        instance
    }

    fn hold(&mut self, at_s: u32, found: Found) {
        self.held_s = at_s;
        self.value = Number::of(found.value);
        self.usual = found.usual.map(Number::of);
        self.unit = found.unit;
    }

    /// Whether it fires.
    pub fn fires(&self) -> bool {
        self.fired_s.is_some()
    }
}

/// What became of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Became {
    /// It fires now.
    Firing,
    /// It is over.
    Resolved,
}

/// Times of an alert, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// It fires after having held for so long.
    pub for_s: u32,
    /// It is over after not having held for so long.
    pub keep_s: u32,
}

/// Notes what happens to instances.
pub type Tell<'t> = &'t mut dyn FnMut(&Instance, Became);

/// The instances of an alert of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life<K: Ord> {
    /// By what they are judged for.
    pub instances: BTreeMap<K, Instance>,
    /// Storms by region.
    pub storms: BTreeMap<String, Instance>,
    /// Times that an instance was held back, or found no room.
    pub held_back: u64,
}

impl<K: Ord> Default for Life<K> {
    fn default() -> Self {
        Life { instances: BTreeMap::new(), storms: BTreeMap::new(), held_back: 0 }
    }
}

impl<K: Ord> Life<K> {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.storms.is_empty()
    }

    /// Notes that the condition holds for `key`.
    pub fn holds(&mut self, key: K, at_s: u32, found: Found, texts: impl FnOnce() -> Texts) {
        let has_room = self.instances.len() < INSTANCES_MAX;
        match self.instances.get_mut(&key) {
            Some(instance) => instance.hold(at_s, found),
            None if has_room => {
                self.instances.insert(key, Instance::new(texts(), at_s, found));
            }
            None => self.held_back += 1,
        }
    }

    /// Keeps what fires as it is: whether it holds cannot be told now.
    pub fn keep(&mut self, at_s: u32) {
        let all = self.instances.values_mut().chain(self.storms.values_mut());
        all.filter(|instance| instance.fires()).for_each(|instance| instance.held_s = at_s);
    }

    /// Ends a tick in which everything that holds was noted: what held long enough fires, what did not hold is over.
    pub fn settle(&mut self, at_s: u32, times: Times, is_of_tenants: bool, tell: Tell<'_>) {
        let is_over = |instance: &Instance| match instance.fired_s {
            Some(_) => at_s.saturating_sub(instance.held_s) >= times.keep_s.max(1),
            // What is pending has to hold all the time.
            None => instance.held_s < at_s,
        };
        self.instances.retain(|_, instance| {
            let over = is_over(instance);
            if over && instance.fires() {
                tell(instance, Became::Resolved);
            }
            !over
        });
        if is_of_tenants {
            self.storms(at_s, times, tell);
        } else {
            self.storms.clear();
        }
        for instance in self.instances.values_mut().filter(|instance| !instance.fires()) {
            if let Some(storm) = self.storms.get(&instance.texts.region) {
                // One that does not fire itself yet only keeps others waiting.
                if storm.fires() && !instance.held_back {
                    (instance.held_back, self.held_back) = (true, self.held_back + 1);
                }
                continue;
            }
            if std::mem::take(&mut instance.held_back) {
                // The storm is over; whoever still has it, has it for himself from now on.
                instance.since_s = at_s;
            }
            if at_s.saturating_sub(instance.since_s) >= times.for_s {
                instance.fired_s = Some(at_s);
                tell(instance, Became::Firing);
            }
        }
    }

    /// Begins and ends storms: an entry means that tenants of the region are held back.
    fn storms(&mut self, at_s: u32, times: Times, tell: Tell<'_>) {
        let mut regions: BTreeMap<&str, (u32, u32, f64)> = BTreeMap::new();
        for instance in self.instances.values().filter(|instance| instance.held_s == at_s) {
            let region = regions.entry(&instance.texts.region).or_insert((0, u32::MAX, 0.0));
            region.0 += 1;
            region.1 = region.1.min(instance.since_s);
            region.2 = region.2.max(instance.value.get());
        }
        for (region, (tenants, since_s, _)) in &regions {
            let count = Found { value: f64::from(*tenants), usual: None, unit: Unit::Count };
            let begins = *tenants as usize > STORM_TENANTS;
            let goes_on = *tenants as usize > STORM_TENANTS / 2;
            match self.storms.get_mut(*region) {
                Some(storm) if goes_on => {
                    storm.hold(at_s, count);
                    storm.tenants = storm.tenants.max(*tenants);
                }
                None if begins => {
                    let source = self.instances.values().next().map(|instance| instance.texts.source.clone());
                    let texts =
                        Texts { source: source.unwrap_or_default(), region: (*region).to_string(), ..Texts::default() };
                    let mut storm = Instance::new(texts, at_s, count);
                    // As long as the first of its tenants.
                    (storm.since_s, storm.tenants) = (*since_s, *tenants);
                    self.storms.insert((*region).to_string(), storm);
                }
                _ => {}
            }
        }
        self.storms.retain(|_, storm| {
            if !storm.fires() && storm.held_s == at_s && at_s.saturating_sub(storm.since_s) >= times.for_s {
                storm.fired_s = Some(at_s);
                tell(storm, Became::Firing);
            }
            let over = match storm.fired_s {
                Some(_) => at_s.saturating_sub(storm.held_s) >= times.keep_s.max(1),
                None => storm.held_s < at_s,
            };
            if over && storm.fires() {
                tell(storm, Became::Resolved);
            }
            !over
        });
    }

    /// Everything that fires: instances, then storms.
    pub fn firing(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().chain(self.storms.values()).filter(|instance| instance.fires())
    }

    /// The tenants that a storm of a region stands for, worst first.
    pub fn worst(&self, region: &str, most: usize) -> Vec<(&str, f64)> {
        let of_region = self.instances.values().filter(|instance| instance.texts.region == region);
        let mut worst: Vec<_> = of_region.map(|i| (i.texts.tenant.as_str(), i.value.get())).collect();
        worst.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        worst.truncate(most);
        worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { for_s: 10, keep_s: 20 };
    const FOUND: Found = Found { value: 0.9, usual: None, unit: Unit::Share };

    /// What was told while the condition held for so many tenants, tick by tick.
    fn told(tenants: impl Fn(u32) -> u32, until_s: u32) -> Vec<(u32, String, Became)> {
        let (mut life, mut told) = (Life::<u32>::default(), Vec::new());
        for at_s in 100..until_s {
            for tenant in 0..tenants(at_s) {
                let texts = || Texts { tenant: format!("t{tenant}"), region: "eu".into(), ..Texts::default() };
                life.holds(tenant, at_s, FOUND, texts);
            }
            life.settle(at_s, TIMES, true, &mut |instance, became| {
                told.push((at_s, instance.texts.tenant.clone(), became));
            });
        }
        told
    }

    fn t(n: u32) -> String {
        format!("t{n}")
    }

    #[test]
    fn it_fires_after_a_while_and_is_over_after_a_while() {
        let held = told(|at_s| u32::from((105..150).contains(&at_s)), 300);
        assert_eq!(held, [(115, t(0), Became::Firing), (169, t(0), Became::Resolved)]);
        assert_eq!(told(|at_s| u32::from(at_s % 10 != 0), 300), [], "what comes and goes never fires");
        let gaps = told(|at_s| u32::from(!(120..139).contains(&at_s)), 300);
        assert_eq!(gaps, [(110, t(0), Became::Firing)], "a short gap ends nothing");
    }

    #[test]
    fn many_tenants_of_a_region_are_one_alert() {
        let held = told(|at_s| if at_s < 200 { 2_000 } else { 0 }, 300);
        assert_eq!(held, [(110, String::new(), Became::Firing), (219, String::new(), Became::Resolved)]);
    }

    #[test]
    fn who_already_fires_goes_on_and_others_are_held_back() {
        let held = told(|at_s| [3, 30][usize::from(at_s >= 150)], 200);
        let firing: Vec<_> = held.iter().map(|(_, tenant, became)| (tenant.as_str(), *became)).collect();
        let (one, all) = (Became::Firing, "");
        assert_eq!(firing, [("t0", one), ("t1", one), ("t2", one), (all, one)]);
    }

    #[test]
    fn what_is_left_after_a_storm_is_for_each_alone_and_not_at_once() {
        let held = told(|at_s| if at_s < 200 { 50 } else { 4 }, 300);
        assert_eq!(held[..2], [(110, String::new(), Became::Firing), (219, String::new(), Became::Resolved)]);
        assert_eq!(held[2..].iter().map(|told| told.0).collect::<Vec<_>>(), [229; 4]);
    }
}
