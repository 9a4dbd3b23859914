//! A worker's own two-level look-up: names to small numbers, those to a key. No lock, no allocation for names that were
//! met before.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FixedState;
use foldhash::quality::SeedableRandomState;
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
    /// A service or a queue.
    pub component: Option<(NameKind, Option<&'e str>)>,
}

/// The same as places in the tables of names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Places {
    source: SourceId,
    /// [`ABSENT`] where the key has none.
    tenant: u32,
    region: u32,
    component: Option<(NameKind, u32)>,
}

impl Places {
    /// The next broader key, for when this one is refused: without its tenant, then without its component. That is never
    /// refused.
    fn broader(self) -> Places {
        match self.component {
            Some((kind, _)) if self.tenant == OTHER || self.tenant == ABSENT => {
                Places { component: Some((kind, OTHER)), ..self }
            }
            _ => Places { tenant: OTHER, ..self },
        }
    }
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
    /// By kind.
    names: [Names; NameKind::ALL.len()],
    /// Keys with a component.
    with_component: HashMap<Places, KeyId, FixedState>,
    /// The others: per source, by tenant place and region place.
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
            names: NameKind::ALL.map(Names::new),
            with_component: HashMap::default(),
            slots: vec![Vec::new(); sources],
            stride: STRIDE_MIN,
            relied: Relied::default(),
        }
    }

    /// Forgets every look-up, so that slots can be freed. What the open Delta relies on stays.
    pub fn forget(&mut self) {
        self.names.iter_mut().for_each(Names::clear);
        self.with_component.clear();
        self.slots.iter_mut().for_each(Vec::clear);
        self.stride = STRIDE_MIN;
    }

    /// The name of a kind; one without a slot is [`NameId::OTHER`].
    pub fn name(&mut self, kind: NameKind, raw: Option<&str>, asked: Asked<'_>) -> NameId {
        let at = self.place(kind, raw, asked);
        self.names[kind as usize].defs[at as usize].as_ref().map_or(NameId::OTHER, |def| def.id)
    }

    /// Hash of a name under the store's key.
    #[inline]
    pub fn hash(&self, raw: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(raw.as_bytes());
        hasher.finish()
    }

    #[inline]
    fn place(&mut self, kind: NameKind, raw: Option<&str>, asked: Asked<'_>) -> u32 {
        let hash = raw.map_or(0, |raw| self.hash(raw));
        self.names[kind as usize].place(hash, raw, asked, &mut self.relied.names)
    }

    /// The key of an event; names without a slot count under `__other__`.
    #[inline]
    pub fn key(&mut self, wanted: Wanted<'_>, asked: Asked<'_>) -> KeyId {
        let tenant = wanted.tenant.map_or(ABSENT, |tenant| self.place(NameKind::Tenant, Some(tenant), asked));
        let region = self.place(NameKind::Region, wanted.region, asked);
        let component = wanted.component.map(|(kind, raw)| (kind, self.place(kind, raw, asked)));
        let places = Places { source: wanted.source, tenant, region, component };
        self.known(places).unwrap_or_else(|| self.resolve(places, asked))
    }

    #[inline]
    fn known(&self, places: Places) -> Option<KeyId> {
        if places.component.is_some() {
            return self.with_component.get(&places).copied();
        }
        let slot = places.tenant as usize * self.stride + places.region as usize;
        let key = self.slots[usize::from(places.source.0)].get(slot)?;
        ((places.region as usize) < self.stride && *key != UNRESOLVED).then_some(KeyId(*key))
    }

    fn remember(&mut self, places: Places, key: KeyId) {
        if places.component.is_some() {
            self.with_component.insert(places, key);
            return;
        }
        if places.region as usize >= self.stride {
            // Wider rows: every look-up so far is asked again, once.
            self.stride = (places.region as usize + 1).next_power_of_two();
            self.slots.iter_mut().for_each(Vec::clear);
        }
        let slots = &mut self.slots[usize::from(places.source.0)];
        let slot = places.tenant as usize * self.stride + places.region as usize;
        if slots.len() <= slot {
            slots.resize((places.tenant as usize + 1) * self.stride, UNRESOLVED);
        }
        slots[slot] = key.0;
    }

    /// Asks the registry for the key, or for a broader one; a refused key is asked for again with its next event.
    #[cold]
    fn resolve(&mut self, places: Places, asked: Asked<'_>) -> KeyId {
        let def = |kind: NameKind, at: u32| self.names[kind as usize].defs.get(at as usize).and_then(Option::as_ref);
        let tenant = def(NameKind::Tenant, places.tenant);
        let component = places.component.and_then(|(kind, at)| def(kind, at));
        let Some(region) = def(NameKind::Region, places.region) else {
            unreachable!("places are handed out only with their definition");
        };
        match asked.registry.key(places.source, tenant, region, component, asked.success) {
            Some(def) => {
                self.relied.keys.push(def);
                self.remember(places, def.id);
                def.id
            }
            None => self.known(places.broader()).unwrap_or_else(|| self.resolve(places.broader(), asked)),
        }
    }
}
