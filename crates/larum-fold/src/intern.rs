//! A worker's own two-level look-up: names to small numbers, those to a key. No lock, no allocation for names that were
//! met before.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::{FixedState, SeedableRandomState};
use hashbrown::HashTable;
use larum_aggregate::{KeyDef, KeyId, NameDef, NameId, NameKind, SourceId};

use crate::registry::Registry;

/// Names of one kind that this worker has met and that have a slot. Place 0 is `__other__`, place 1 "not said".
struct Names {
    kind: NameKind,
    table: HashTable<(u64, u32)>,
    raws: Vec<Box<str>>,
    defs: Vec<Option<NameDef>>,
}

/// Place of `__other__` in every table.
const OTHER: u32 = 0;
/// Place of a name that is not said.
const UNSAID: u32 = 1;
/// Stands for the place of a label that the key does not have.
const ABSENT: u32 = u32::MAX;
/// No key resolved yet.
const UNRESOLVED: u32 = u32::MAX;

impl Names {
    fn new(kind: NameKind) -> Self {
        let mut names = Names { kind, table: HashTable::new(), raws: Vec::new(), defs: Vec::new() };
        names.clear();
        names
    }

    fn clear(&mut self) {
        self.table.clear();
        self.raws = vec!["".into(), "".into()];
        let other = NameDef { id: NameId::OTHER, kind: self.kind, text: NameId::OTHER_TEXT.to_string() };
        self.defs = vec![Some(other), None];
    }

    /// The place of a name that was met before.
    #[inline]
    fn find(&self, hash: u64, raw: &str) -> Option<u32> {
        self.table.find(hash, |(h, at)| *h == hash && *self.raws[*at as usize] == *raw).map(|(_, at)| *at)
    }

    /// The place of a name, as said or not said, asked for if it was not met before.
    #[inline]
    fn place(&mut self, hash: u64, raw: Option<&str>, asked: Asked<'_>, relied: &mut Vec<NameDef>) -> u32 {
        let known = match raw {
            Some(raw) => self.find(hash, raw),
            None => self.defs[UNSAID as usize].is_some().then_some(UNSAID),
        };
        match known {
            Some(at) => at,
            None => self.admit(hash, raw, asked, relied),
        }
    }

    /// Asks the registry; keeps the place only if the name has a slot, so that minted names fill no table.
    #[cold]
    fn admit(&mut self, hash: u64, raw: Option<&str>, asked: Asked<'_>, relied: &mut Vec<NameDef>) -> u32 {
        let Some(def) = asked.registry.name(self.kind, raw, asked.success) else { return OTHER };
        relied.push(def.clone());
        let Some(raw) = raw else {
            self.defs[UNSAID as usize] = Some(def);
            return UNSAID;
        };
        let at = self.defs.len() as u32;
        self.raws.push(raw.into());
        self.defs.push(Some(def));
        self.table.insert_unique(hash, (hash, at), |(h, _)| *h);
        at
    }
}

/// Who is asked for a slot, and whether the event that needs it succeeded.
#[derive(Clone, Copy)]
pub struct Asked<'r> {
    pub registry: &'r Registry,
    pub success: bool,
}

/// The labels that a key is wanted for, as they came: outer `None` where the key has no such label.
#[derive(Clone, Copy)]
pub struct Wanted<'e> {
    pub source: SourceId,
    pub tenant: Option<&'e str>,
    pub region: Option<&'e str>,
    pub service: Option<Option<&'e str>>,
}

/// What the open Delta relies on and no earlier Delta of this worker said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Relied {
    pub names: Vec<NameDef>,
    pub keys: Vec<KeyDef>,
}

/// Labels to key, for one worker.
pub struct Interner {
    hasher: SeedableRandomState,
    tenants: Names,
    regions: Names,
    services: Names,
    /// Keys with a service: by source and places of tenant, region and service.
    with_service: HashMap<(SourceId, u32, u32, u32), KeyId, FixedState>,
    /// Per source: keys by tenant place and region place.
    slots: Vec<Vec<u32>>,
    /// Slots per tenant, a power of two.
    stride: usize,
    pub relied: Relied,
}

/// Slots per tenant to begin with.
const STRIDE_MIN: usize = 16;

impl Interner {
    pub fn new(hash_key: (u64, u64), sources: usize) -> Self {
        Interner {
            hasher: SeedableRandomState::with_seed(hash_key.0 ^ hash_key.1, SharedSeed::global_fixed()),
            tenants: Names::new(NameKind::Tenant),
            regions: Names::new(NameKind::Region),
            services: Names::new(NameKind::Service),
            with_service: HashMap::default(),
            slots: vec![Vec::new(); sources],
            stride: STRIDE_MIN,
            relied: Relied::default(),
        }
    }

    /// Forgets every look-up, so that slots can be freed. What the open Delta relies on stays.
    pub fn forget(&mut self) {
        self.tenants.clear();
        self.regions.clear();
        self.services.clear();
        self.with_service.clear();
        self.slots.iter_mut().for_each(Vec::clear);
        self.stride = STRIDE_MIN;
    }

    /// The key of an event; names without a slot count under `__other__`.
    #[inline]
    pub fn key(&mut self, wanted: Wanted<'_>, asked: Asked<'_>) -> KeyId {
        let (source, relied) = (wanted.source, &mut self.relied.names);
        let hash = |raw: &str| {
            let mut hasher = self.hasher.build_hasher();
            hasher.write(raw.as_bytes());
            hasher.finish()
        };
        let tenant_at = match wanted.tenant {
            Some(tenant) => self.tenants.place(hash(tenant), Some(tenant), asked, relied),
            None => ABSENT,
        };
        let region_at = self.regions.place(wanted.region.map_or(0, hash), wanted.region, asked, relied);
        if let Some(service) = wanted.service {
            let service_at = self.services.place(service.map_or(0, hash), service, asked, relied);
            let known = self.with_service.get(&(source, tenant_at, region_at, service_at));
            return known
                .copied()
                .unwrap_or_else(|| self.resolve_with_service(source, tenant_at, region_at, service_at, asked));
        }
        let slot = tenant_at as usize * self.stride + region_at as usize;
        if (region_at as usize) < self.stride
            && let Some(key) = self.slots[usize::from(source.0)].get(slot)
            && *key != UNRESOLVED
        {
            return KeyId(*key);
        }
        self.resolve(source, tenant_at, region_at, asked)
    }

    #[cold]
    fn resolve_with_service(
        &mut self,
        source: SourceId,
        tenant_at: u32,
        region_at: u32,
        service_at: u32,
        asked: Asked<'_>,
    ) -> KeyId {
        let name = |names: &Names, at: u32| names.defs.get(at as usize).cloned().flatten();
        let (tenant, service) = (name(&self.tenants, tenant_at), name(&self.services, service_at));
        let Some(region) = name(&self.regions, region_at) else {
            unreachable!("places are handed out only with their definition");
        };
        match asked.registry.key(source, tenant.as_ref(), &region, service.as_ref(), asked.success) {
            Some(def) => {
                self.relied.keys.push(def);
                self.with_service.insert((source, tenant_at, region_at, service_at), def.id);
                def.id
            }
            // Refused: counts without its tenant, then without its service; that is never refused.
            None => {
                let (tenant_at, service_at) = match tenant_at {
                    OTHER | ABSENT => (tenant_at, OTHER),
                    _ => (OTHER, service_at),
                };
                match self.with_service.get(&(source, tenant_at, region_at, service_at)) {
                    Some(key) => *key,
                    None => self.resolve_with_service(source, tenant_at, region_at, service_at, asked),
                }
            }
        }
    }

    #[cold]
    fn resolve(&mut self, source: SourceId, tenant_at: u32, region_at: u32, asked: Asked<'_>) -> KeyId {
        if region_at as usize >= self.stride {
            // Wider rows: every look-up so far is asked again, once.
            self.stride = (region_at as usize + 1).next_power_of_two();
            self.slots.iter_mut().for_each(Vec::clear);
        }
        let place = |at: u32, names: &Names| names.defs[at as usize].clone();
        let (Some(tenant), Some(region)) = (place(tenant_at, &self.tenants), place(region_at, &self.regions)) else {
            unreachable!("places are handed out only with their definition");
        };
        match asked.registry.key(source, Some(&tenant), &region, None, asked.success) {
            Some(def) => {
                self.relied.keys.push(def);
                let slots = &mut self.slots[usize::from(source.0)];
                let slot = tenant_at as usize * self.stride + region_at as usize;
                if slots.len() <= slot {
                    slots.resize((tenant_at as usize + 1) * self.stride, UNRESOLVED);
                }
                slots[slot] = def.id.0;
                def.id
            }
            // Refused: counts under `__other__`, whose keys are never refused. Asked again with the next event.
            None => self.key_of_other(source, region_at, asked),
        }
    }

    fn key_of_other(&mut self, source: SourceId, region_at: u32, asked: Asked<'_>) -> KeyId {
        let known = self.slots[usize::from(source.0)].get(region_at as usize).filter(|key| **key != UNRESOLVED);
        match known {
            Some(key) => KeyId(*key),
            None => self.resolve(source, OTHER, region_at, Asked { success: true, ..asked }),
        }
    }
}
