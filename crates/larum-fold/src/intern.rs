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

/// A name that was met before.
struct Known {
    hash: u64,
    place: u32,
    len: u32,
    /// All of a short name: most are, and are compared where they are found.
    words: [u64; 3],
}

/// All of a name of up to 24 bytes, in words that may overlap: with its length it can be no other.
#[inline]
fn words(name: &[u8]) -> Option<[u64; 3]> {
    let len = name.len();
    Some(match len {
        0 => [0; 3],
        1..=3 => [name[0], name[len / 2], name[len - 1]].map(u64::from),
        4..=7 => [name.first_chunk()?, name.last_chunk()?, &[0; 4]].map(|word| u64::from(u32::from_le_bytes(*word))),
        8..=16 => [name.first_chunk()?, name.last_chunk()?, &[0; 8]].map(|word| u64::from_le_bytes(*word)),
        17..=24 => {
            [name.first_chunk()?, name[8..].first_chunk()?, name.last_chunk()?].map(|word| u64::from_le_bytes(*word))
        }
        _ => return None,
    })
}

/// Names of one kind that this worker has met and that have a slot. Place 0 is `__other__`, place 1 "not said".
struct Names {
    kind: NameKind,
    table: HashTable<Known>,
    /// By place, as they came; empty where words hold all.
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
/// The key was refused.
const REFUSED: u32 = u32::MAX - 1;

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
        let words = words(raw.as_bytes());
        let is_it = |known: &Known| {
            let is_alike = known.hash == hash && known.len as usize == raw.len();
            is_alike
                && match words {
                    Some(words) => known.words == words,
                    None => *self.raws[known.place as usize] == *raw,
                }
        };
        self.table.find(hash, is_it).map(|known| known.place)
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
        let words = words(raw.as_bytes());
        let known = Known { hash, place: at, len: raw.len() as u32, words: words.unwrap_or_default() };
        self.raws.push(if words.is_some() { "" } else { raw }.into());
        self.defs.push(Some(def));
        self.table.insert_unique(hash, known, |known| known.hash);
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
    /// Places marked as refused.
    refused: Vec<Places>,
    /// How many keys had been admitted then.
    refused_when: u32,
    /// Events whose keys were refused without asking, since that was last told.
    refused_events: u64,
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
            refused: Vec::new(),
            refused_when: 0,
            refused_events: 0,
            relied: Relied::default(),
        }
    }

    /// Forgets every look-up, so that slots can be freed. What the open Delta relies on stays.
    pub fn forget(&mut self) {
        self.names.iter_mut().for_each(Names::clear);
        self.with_component.clear();
        self.slots.iter_mut().for_each(Vec::clear);
        self.stride = STRIDE_MIN;
        self.refused.clear();
    }

    /// Events whose keys were refused without asking the registry, since the last call.
    pub fn take_refused_events(&mut self) -> u64 {
        std::mem::take(&mut self.refused_events)
    }

    /// The name of a kind; one without a slot is [`NameId::OTHER`].
    pub fn name(&mut self, kind: NameKind, raw: Option<&str>, asked: Asked<'_>) -> NameId {
        let at = self.place(kind, raw, asked);
        self.names[kind as usize].defs[at as usize].as_ref().map_or(NameId::OTHER, |def| def.id)
    }

    /// Hash of a name under the store's key.
    #[inline]
    pub fn hash(&self, raw: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(raw);
        hasher.finish()
    }

    #[inline]
    fn place(&mut self, kind: NameKind, raw: Option<&str>, asked: Asked<'_>) -> u32 {
        let hash = raw.map_or(0, |raw| self.hash(raw.as_bytes()));
        self.names[kind as usize].place(hash, raw, asked, &mut self.relied.names)
    }

    /// The key of an event; names without a slot count under `__other__`.
    #[inline]
    pub fn key(&mut self, wanted: Wanted<'_>, asked: Asked<'_>) -> KeyId {
        let tenant = wanted.tenant.map_or(ABSENT, |tenant| self.place(NameKind::Tenant, Some(tenant), asked));
        let region = self.place(NameKind::Region, wanted.region, asked);
        let component = wanted.component.map(|(kind, raw)| (kind, self.place(kind, raw, asked)));
        let places = Places { source: wanted.source, tenant, region, component };
        self.of_places(places, asked)
    }

    /// The key of places, or a broader one; what was refused is not asked for again while that cannot help.
    #[inline]
    fn of_places(&mut self, mut places: Places, asked: Asked<'_>) -> KeyId {
        loop {
            match self.known(places) {
                Some(KeyId(REFUSED)) if self.is_still_refused(asked) => {
                    self.refused_events += 1;
                    places = places.broader();
                }
                Some(key) if key != KeyId(REFUSED) => return key,
                _ => return self.resolve(places, asked),
            }
        }
    }

    /// Whether what was refused would be refused again, so that nobody need be asked. Slots are freed only after
    /// everything was forgotten.
    #[inline]
    fn is_still_refused(&self, asked: Asked<'_>) -> bool {
        self.refused_when == asked.registry.keys_admitted() && !asked.registry.has_room_for_key(asked.success)
    }

    #[inline]
    fn known(&self, places: Places) -> Option<KeyId> {
        if places.component.is_some() {
            return self.with_component.get(&places).copied().filter(|key| *key != KeyId(UNRESOLVED));
        }
        let slot = places.tenant as usize * self.stride + places.region as usize;
        let key = self.slots[usize::from(places.source.0)].get(slot)?;
        ((places.region as usize) < self.stride && *key != UNRESOLVED).then_some(KeyId(*key))
    }

    /// Marks a key as refused; marks from before another key was admitted are worth nothing.
    fn refuse(&mut self, places: Places, admitted: u32) {
        if self.refused_when != admitted {
            self.refused_when = admitted;
            for place in std::mem::take(&mut self.refused) {
                if self.known(place) == Some(KeyId(REFUSED)) {
                    self.remember(place, KeyId(UNRESOLVED));
                }
            }
        }
        if self.known(places) != Some(KeyId(REFUSED)) {
            self.refused.push(places);
            self.remember(places, KeyId(REFUSED));
        }
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

    /// Asks the registry for the key, or for a broader one.
    #[cold]
    fn resolve(&mut self, places: Places, asked: Asked<'_>) -> KeyId {
        let def = |kind: NameKind, at: u32| self.names[kind as usize].defs.get(at as usize).and_then(Option::as_ref);
        let tenant = def(NameKind::Tenant, places.tenant);
        let component = places.component.and_then(|(kind, at)| def(kind, at));
        let Some(region) = def(NameKind::Region, places.region) else {
            unreachable!("places are handed out only with their definition");
        };
        let admitted = asked.registry.keys_admitted();
        match asked.registry.key(places.source, tenant, region, component, asked.success) {
            Some(def) => {
                self.relied.keys.push(def);
                self.remember(places, def.id);
                def.id
            }
            None => {
                self.refuse(places, admitted);
                self.of_places(places.broader(), asked)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Budgets;

    fn wanted(tenant: &str, component: bool) -> Wanted<'_> {
        let component = component.then_some((NameKind::Service, Some("s")));
        Wanted { source: SourceId(0), tenant: Some(tenant), region: Some("r"), component }
    }

    /// A key that was refused is asked for again only when that can help, and every refused event is counted.
    #[test]
    fn refusals_are_remembered_while_they_hold() {
        for component in [false, true] {
            let registry = Registry::new(Budgets { keys: 4, ..Budgets::default() }, (1, 2), &[], &[], (0, 0));
            let (mut here, mut there) = (Interner::new((1, 2), 1), Interner::new((1, 2), 1));
            let ask = |interner: &mut Interner, tenant, success| {
                interner.key(wanted(tenant, component), Asked { registry: &registry, success })
            };
            let [a, b] = ["a", "b"].map(|tenant| ask(&mut here, tenant, false));
            let other = ask(&mut here, "c", false);
            assert!(a != b && other != b, "half of the slots are for everybody");
            for _ in 0..5 {
                assert_eq!(ask(&mut here, "c", false), other);
            }
            let c = ask(&mut here, "c", true);
            assert!(c != other && ask(&mut here, "c", false) == c, "a success gets a slot");
            assert_eq!(ask(&mut here, "d", false), other);
            let d = ask(&mut there, "d", true);
            assert_eq!(ask(&mut here, "d", false), d, "another worker's slot serves this one");
            for _ in 0..3 {
                assert_eq!(ask(&mut here, "e", true), other, "all slots are taken");
            }
            registry.refuse_keys(here.take_refused_events());
            // With a component, the key without its tenant takes a slot of its own, which the other worker then lacks.
            let refused = if component { 6 + 1 + 3 + 2 } else { 6 + 1 + 3 };
            assert_eq!(registry.key_usage().refused(), refused, "component {component}");
        }
    }

    /// With no slot left at all, the broader keys are refused too: nobody is asked with every event, nothing grows.
    #[test]
    fn refusals_of_broader_keys_are_remembered_once() {
        let registry = Registry::new(Budgets { keys: 2, ..Budgets::default() }, (1, 2), &[], &[], (0, 0));
        let mut interner = Interner::new((1, 2), 1);
        let asked = Asked { registry: &registry, success: true };
        for (kind, name) in [(NameKind::Tenant, "a"), (NameKind::Region, "r"), (NameKind::Service, "s")] {
            assert_ne!(interner.name(kind, Some(name), asked), NameId::OTHER);
        }
        registry.close(true);
        let keys: Vec<KeyId> = (0..1_000).map(|_| interner.key(wanted("a", true), asked)).collect();
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert!(interner.refused.len() <= 2, "{}", interner.refused.len());
        assert!(interner.refused_events >= 2 * 900, "{}", interner.refused_events);
    }

    #[test]
    fn words_hold_every_byte_of_a_short_name() {
        for len in 0..=24 {
            let name = vec![b'x'; len];
            for at in 0..len {
                let mut other = name.clone();
                other[at] = b'y';
                assert_ne!(words(&name), words(&other), "{len} bytes, at {at}");
            }
            assert!(words(&name).is_some());
        }
        assert_eq!(words(&[b'x'; 25]), None);
    }

    #[test]
    fn names_of_any_length_are_told_apart() {
        let registry = Registry::new(Budgets::default(), (1, 2), &[], &[], (0, 0));
        let mut interner = Interner::new((1, 2), 1);
        let names: Vec<String> = (1..60).flat_map(|len| ["x", "y"].map(|c| c.repeat(len))).collect();
        let mut places = || -> Vec<NameId> {
            let asked = Asked { registry: &registry, success: true };
            names.iter().map(|name| interner.name(NameKind::Service, Some(name), asked)).collect()
        };
        let first = places();
        assert_eq!(places(), first);
        let mut ids = first;
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), names.len());
    }
}
