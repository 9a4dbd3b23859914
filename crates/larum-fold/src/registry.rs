//! Admission: which names and keys have a slot. Shared by the workers, asked only when a worker meets a name anew.
//!
//! Tenant names come from people who are not signed in, so minted ones must not crowd out customers: above half of a
//! budget a name gets a slot only if it is configured or brings a success. The rest counts under `__other__`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use larum_aggregate::{KeyDef, KeyId, NameDef, NameId, NameKind, SourceId};

use crate::names::{UNKNOWN, shown_name};

/// How many slots there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Tenant names.
    pub tenants: usize,
    /// Names that come from the platform, per kind.
    pub platform_names: usize,
    /// Live keys of a tenant: (source, tenant, region), and those with a component.
    pub keys: usize,
    /// Tenants that get a slot at any time.
    pub configured_tenants: HashSet<String>,
}

impl Default for Budgets {
    fn default() -> Self {
        Budgets { tenants: 10_000, platform_names: 256, keys: 50_000, configured_tenants: HashSet::new() }
    }
}

/// A slot: its id, and whether it is about to be freed.
#[derive(Clone, Copy, Debug)]
struct Slot<T> {
    id: T,
    retiring: bool,
}

/// Held and refused, for one budget.
#[derive(Debug, Default)]
pub struct Usage {
    held: AtomicUsize,
    refused: AtomicU64,
}

impl Usage {
    /// Slots in use.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How often a slot was refused since the process started.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether a slot is free, for the privileged or for everybody.
    fn has_room(&self, budget: usize, privileged: bool) -> bool {
        self.held() < Self::limit(budget, privileged)
    }

    fn limit(budget: usize, privileged: bool) -> usize {
        if privileged { budget } else { budget.div_ceil(2) }
    }

    /// Takes a slot while less than half of the budget is used, above that only for the privileged.
    fn take(&self, budget: usize, privileged: bool) -> bool {
        let limit = Self::limit(budget, privileged);
        let took = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < limit).then_some(held + 1))
            .is_ok();
        if !took {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        took
    }
}

/// What tells a key from others: source, tenant, region, component.
type KeyPlace = (SourceId, NameId, NameId, NameId);

fn place_of(key: &KeyDef) -> KeyPlace {
    (key.source, key.tenant, key.region, key.component)
}

/// The admitted names and keys of a process.
#[derive(Debug)]
pub struct Registry {
    budgets: Budgets,
    hash_key: (u64, u64),
    names: DashMap<(NameKind, String), Slot<NameId>>,
    keys: DashMap<KeyPlace, Slot<KeyId>>,
    next_name: AtomicU32,
    next_key: AtomicU32,
    /// By kind.
    name_usage: [Usage; NameKind::ALL.len()],
    key_usage: Usage,
    /// Nobody gets a slot, because memory is full.
    closed: AtomicBool,
}

impl Registry {
    /// A registry that goes on from the names and keys of the durable state; `hash_key` hides hostile names and seeds
    /// the look-ups.
    pub fn new(budgets: Budgets, hash_key: (u64, u64), names: &[NameDef], keys: &[KeyDef], next: (u32, u32)) -> Self {
        let registry = Registry {
            budgets,
            hash_key,
            names: DashMap::new(),
            keys: DashMap::new(),
            next_name: AtomicU32::new(next.0.max(1)),
            next_key: AtomicU32::new(next.1),
            name_usage: Default::default(),
            key_usage: Usage::default(),
            closed: AtomicBool::new(false),
        };
        for name in names {
            registry.usage(name.kind).held.fetch_add(1, Ordering::Relaxed);
            registry.names.insert((name.kind, name.text.clone()), Slot { id: name.id, retiring: false });
        }
        for key in keys {
            if key.is_budgeted() {
                registry.key_usage.held.fetch_add(1, Ordering::Relaxed);
            }
            registry.keys.insert(place_of(key), Slot { id: key.id, retiring: false });
        }
        registry
    }

    /// Closes admission, or opens it again: while it is closed no name and no key gets a slot, and what is new counts under
    /// `__other__`.
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    /// Whether admission is closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Takes a slot, unless admission is closed.
    fn take(&self, usage: &Usage, budget: usize, privileged: bool) -> bool {
        // A closed door is a budget of nothing.
        usage.take(if self.is_closed() { 0 } else { budget }, privileged)
    }

    /// The key under which hostile names are hashed.
    pub fn hash_key(&self) -> (u64, u64) {
        self.hash_key
    }

    /// Slots of a kind of name, held and refused.
    pub fn usage(&self, kind: NameKind) -> &Usage {
        &self.name_usage[kind as usize]
    }

    /// Slots of keys, held and refused.
    pub fn key_usage(&self) -> &Usage {
        &self.key_usage
    }

    /// The slot of a name as it came (`None`: not said); `None` when it is refused. `success`: the event that brings it
    /// succeeded.
    pub fn name(&self, kind: NameKind, raw: Option<&str>, success: bool) -> Option<NameDef> {
        let text = raw.map_or(UNKNOWN.into(), |raw| shown_name(raw, self.hash_key)).into_owned();
        let def = |id| NameDef { id, kind, text: text.clone() };
        match self.names.entry((kind, text.clone())) {
            Entry::Occupied(mut slot) => {
                slot.get_mut().retiring = false;
                Some(def(slot.get().id))
            }
            Entry::Vacant(vacant) => {
                let (budget, configured) = match kind {
                    NameKind::Tenant => (self.budgets.tenants, self.budgets.configured_tenants.contains(&text)),
                    _ => (self.budgets.platform_names, false),
                };
                if !self.take(self.usage(kind), budget, success || configured) {
                    return None;
                }
                let id = NameId(self.next_name.fetch_add(1, Ordering::Relaxed));
                vacant.insert(Slot { id, retiring: false });
                Some(def(id))
            }
        }
    }

    /// The slot of a key with these labels; `None` when it is refused. Keys that tell apart neither tenants nor components
    /// are always admitted: regions bound them.
    pub fn key(
        &self,
        source: SourceId,
        tenant: Option<&NameDef>,
        region: &NameDef,
        component: Option<&NameDef>,
        success: bool,
    ) -> Option<KeyDef> {
        let id = |name: Option<&NameDef>| name.map_or(NameId::NONE, |name| name.id);
        let def = |key| KeyDef { id: key, source, tenant: id(tenant), region: region.id, component: id(component) };
        let wanted = def(KeyId(0));
        match self.keys.entry(place_of(&wanted)) {
            Entry::Occupied(mut slot) => {
                slot.get_mut().retiring = false;
                Some(def(slot.get().id))
            }
            Entry::Vacant(vacant) => {
                // Without a tenant of its own a key comes from the platform, which mints no names.
                let is_trusted = |tenant: &NameDef| {
                    tenant.id == NameId::OTHER || self.budgets.configured_tenants.contains(&tenant.text)
                };
                let privileged = success || tenant.is_none_or(is_trusted);
                if wanted.is_budgeted() && !self.take(&self.key_usage, self.budgets.keys, privileged) {
                    return None;
                }
                let id = KeyId(self.next_key.fetch_add(1, Ordering::Relaxed));
                vacant.insert(Slot { id, retiring: false });
                Some(def(id))
            }
        }
    }

    /// How many keys were admitted so far: while that stays, a key that was refused is not there.
    pub fn keys_admitted(&self) -> u32 {
        self.next_key.load(Ordering::Relaxed)
    }

    /// Whether a key has a slot to get, with an event that succeeded or another.
    pub fn has_room_for_key(&self, success: bool) -> bool {
        !self.is_closed() && self.key_usage.has_room(self.budgets.keys, success)
    }

    /// Counts events whose keys were refused without asking.
    pub fn refuse_keys(&self, events: u64) {
        self.key_usage.refused.fetch_add(events, Ordering::Relaxed);
    }

    /// Announces that slots may be freed. Until they are retired any use revives them.
    pub fn announce(&self, keys: &[KeyDef], names: &[NameDef]) {
        for key in keys {
            if let Some(mut slot) = self.keys.get_mut(&place_of(key)) {
                slot.retiring = true;
            }
        }
        for name in names {
            if let Some(mut slot) = self.names.get_mut(&(name.kind, name.text.clone())) {
                slot.retiring = true;
            }
        }
    }

    /// Frees the announced keys that nobody used since; `keep` says which the Deltas at hand still use.
    ///
    /// Every worker must have forgotten its look-ups between announcement and now: then nobody can use a freed slot.
    pub fn retire_keys(&self, keys: &[KeyDef], keep: impl Fn(KeyId) -> bool) -> Vec<KeyId> {
        let mut freed = Vec::new();
        for key in keys.iter().filter(|key| key.is_budgeted()) {
            if self.keys.remove_if(&place_of(key), |_, slot| slot.retiring && !keep(slot.id)).is_some() {
                self.key_usage.held.fetch_sub(1, Ordering::Relaxed);
                freed.push(key.id);
            }
        }
        freed
    }

    /// The same for names; leave out those that a kept key shows.
    pub fn retire_names(&self, names: &[NameDef]) -> Vec<NameId> {
        let mut freed = Vec::new();
        for name in names {
            let place = (name.kind, name.text.clone());
            if self.names.remove_if(&place, |_, slot| slot.retiring).is_some() {
                self.usage(name.kind).held.fetch_sub(1, Ordering::Relaxed);
                freed.push(name.id);
            }
        }
        freed
    }

    /// Slots there are for a kind of name.
    pub fn budget(&self, kind: NameKind) -> usize {
        match kind {
            NameKind::Tenant => self.budgets.tenants,
            _ => self.budgets.platform_names,
        }
    }

    /// Slots there are for keys.
    pub fn key_budget(&self) -> usize {
        self.budgets.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(tenants: usize) -> Registry {
        let budgets = Budgets { tenants, configured_tenants: HashSet::from(["vip".to_string()]), ..Budgets::default() };
        Registry::new(budgets, (1, 2), &[], &[], (0, 0))
    }

    #[test]
    fn minted_names_get_at_most_half_of_the_budget() {
        let registry = registry(10);
        let admitted = (0..1000).filter(|i| registry.name(NameKind::Tenant, Some(&format!("m{i}")), false).is_some());
        assert_eq!(admitted.count(), 5);
        assert!(registry.name(NameKind::Tenant, Some("vip"), false).is_some());
        let customers = (0..10).filter(|i| registry.name(NameKind::Tenant, Some(&format!("c{i}")), true).is_some());
        assert_eq!(customers.count(), 4);
        assert_eq!(registry.usage(NameKind::Tenant).held(), 10);
        assert_eq!(registry.usage(NameKind::Tenant).refused(), 995 + 6);
    }

    #[test]
    fn a_slot_used_between_announcement_and_retirement_stays() {
        let registry = registry(10);
        let tenant = registry.name(NameKind::Tenant, Some("t"), true).unwrap();
        let region = registry.name(NameKind::Region, None, true).unwrap();
        let used = registry.key(SourceId(0), Some(&tenant), &region, None, true).unwrap();
        let idle = registry.key(SourceId(1), Some(&tenant), &region, None, true).unwrap();
        registry.announce(&[used, idle], std::slice::from_ref(&tenant));
        registry.name(NameKind::Tenant, Some("t"), true);
        registry.key(SourceId(0), Some(&tenant), &region, None, true);
        assert_eq!(registry.retire_keys(&[used, idle], |_| false), [idle.id]);
        assert_eq!(registry.retire_names(&[tenant]), []);
        registry.announce(&[used], &[]);
        assert_eq!(registry.retire_keys(&[used], |key| key == used.id), []);
    }
}
