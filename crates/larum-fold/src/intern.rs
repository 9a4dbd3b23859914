//! A worker's own two-level look-up: tenant and region texts to small numbers, those to a key. No lock, no allocation
//! for names that were met before.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
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

    /// Asks the registry; keeps the place only if the name has a slot, so that minted names fill no table.
    #[cold]
    fn admit(
        &mut self,
        hash: u64,
        raw: Option<&str>,
        success: bool,
        registry: &Registry,
        relied: &mut Vec<NameDef>,
    ) -> u32 {
        let Some(def) = registry.name(self.kind, raw, success) else { return OTHER };
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

/// What the open Delta relies on and no earlier Delta of this worker said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Relied {
    pub names: Vec<NameDef>,
    pub keys: Vec<KeyDef>,
}

/// Tenant and region to key, for one worker.
pub struct Interner {
    hasher: SeedableRandomState,
    tenants: Names,
    regions: Names,
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
            slots: vec![Vec::new(); sources],
            stride: STRIDE_MIN,
            relied: Relied::default(),
        }
    }

    /// Forgets every look-up, so that slots can be freed. What the open Delta relies on stays.
    pub fn forget(&mut self) {
        self.tenants.clear();
        self.regions.clear();
        self.slots.iter_mut().for_each(Vec::clear);
        self.stride = STRIDE_MIN;
    }

    #[inline]
    fn hash(&self, raw: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(raw.as_bytes());
        hasher.finish()
    }

    /// The key of an event; names without a slot count under `__other__`.
    #[inline]
    pub fn key(
        &mut self,
        source: SourceId,
        tenant: &str,
        region: Option<&str>,
        success: bool,
        registry: &Registry,
    ) -> KeyId {
        let tenant_hash = self.hash(tenant);
        let tenant_at = match self.tenants.find(tenant_hash, tenant) {
            Some(at) => at,
            None => self.tenants.admit(tenant_hash, Some(tenant), success, registry, &mut self.relied.names),
        };
        let region_at = match region {
            None if self.regions.defs[UNSAID as usize].is_some() => UNSAID,
            None => self.regions.admit(0, None, success, registry, &mut self.relied.names),
            Some(raw) => {
                let hash = self.hash(raw);
                match self.regions.find(hash, raw) {
                    Some(at) => at,
                    None => self.regions.admit(hash, Some(raw), success, registry, &mut self.relied.names),
                }
            }
        };
        let slot = tenant_at as usize * self.stride + region_at as usize;
        if (region_at as usize) < self.stride
            && let Some(key) = self.slots[usize::from(source.0)].get(slot)
            && *key != UNRESOLVED
        {
            return KeyId(*key);
        }
        self.resolve(source, tenant_at, region_at, success, registry)
    }

    #[cold]
    fn resolve(
        &mut self,
        source: SourceId,
        tenant_at: u32,
        region_at: u32,
        success: bool,
        registry: &Registry,
    ) -> KeyId {
        if region_at as usize >= self.stride {
            // Wider rows: every look-up so far is asked again, once.
            self.stride = (region_at as usize + 1).next_power_of_two();
            self.slots.iter_mut().for_each(Vec::clear);
        }
        let place = |at: u32, names: &Names| names.defs[at as usize].clone();
        let (Some(tenant), Some(region)) = (place(tenant_at, &self.tenants), place(region_at, &self.regions)) else {
            unreachable!("places are handed out only with their definition");
        };
        match registry.key(source, &tenant, &region, success) {
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
            None => self.key_of_other(source, region_at, registry),
        }
    }

    fn key_of_other(&mut self, source: SourceId, region_at: u32, registry: &Registry) -> KeyId {
        let known = self.slots[usize::from(source.0)].get(region_at as usize).filter(|key| **key != UNRESOLVED);
        match known {
            Some(key) => KeyId(*key),
            None => self.resolve(source, OTHER, region_at, true, registry),
        }
    }
}
