//! Where the keys of a source stand, by their ids: looked up for whatever a tick counts.

use larum_aggregate::KeyId;

use crate::key::KeyView;

/// An id that no key has.
const NOBODY: u32 = u32::MAX;
/// The table may be so many times as long as there are keys, and a little longer: ids are given one after the other, and
/// keys that retire leave holes.
const SPARSE_MAX: usize = 4;
const SPARSE_FREE: usize = 1024;

/// Places of keys. Made anew when it does not fit the keys any more; where ids lie too far apart places are searched.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyPlaces {
    /// The lowest id.
    first: u32,
    /// By id, counted from the lowest: its key's place, or nobody's.
    table: Vec<u32>,
    /// So many keys are known; none while it is to be made anew.
    keys: Option<usize>,
}

impl KeyPlaces {
    /// Makes it fit the keys, which are sorted by id.
    pub(crate) fn fit(&mut self, keys: &[KeyView]) {
        if self.keys == Some(keys.len()) {
            return;
        }
        (self.keys, self.first) = (Some(keys.len()), keys.first().map_or(0, |key| key.def.id.0));
        self.table.clear();
        let span = keys.last().map_or(0, |key| (key.def.id.0 - self.first) as usize + 1);
        if span > keys.len() * SPARSE_MAX + SPARSE_FREE {
            self.table.shrink_to_fit();
            return;
        }
        self.table.resize(span, NOBODY);
        for (at, key) in keys.iter().enumerate() {
            self.table[(key.def.id.0 - self.first) as usize] = at as u32;
        }
    }

    /// The place of a key among `keys`, which it fits.
    #[inline]
    pub(crate) fn of(&self, id: KeyId, keys: &[KeyView]) -> Option<usize> {
        debug_assert!(self.keys == Some(keys.len()));
        if self.table.is_empty() {
            return keys.binary_search_by_key(&id, |key| key.def.id).ok();
        }
        let at = *self.table.get(id.0.checked_sub(self.first)? as usize)?;
        (at != NOBODY).then_some(at as usize)
    }

    /// A key was put in, at this place.
    pub(crate) fn admitted(&mut self, at: usize, id: KeyId) {
        let Some(keys) = self.keys.filter(|keys| *keys == at && at > 0 && !self.table.is_empty()) else {
            self.keys = None;
            return;
        };
        let span = (id.0 - self.first) as usize;
        if span >= (keys + 1) * SPARSE_MAX + SPARSE_FREE {
            self.keys = None;
            return;
        }
        self.table.resize(span, NOBODY);
        self.table.push(at as u32);
        self.keys = Some(keys + 1);
    }

    /// Keys were taken out, or put in between others.
    pub(crate) fn moved(&mut self) {
        self.keys = None;
    }

    /// Bytes that it takes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.table.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::{KeyDef, NameId, SourceId};

    fn key(id: u32) -> KeyView {
        let (source, tenant, region) = (SourceId(0), NameId(1), NameId(2));
        KeyView::new(KeyDef { id: KeyId(id), source, tenant, region, component: NameId::NONE }, 0)
    }

    #[test]
    fn places_are_those_of_a_search_whatever_comes_and_goes() {
        for seed in 0..60 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut places, mut keys, mut next) = (KeyPlaces::default(), Vec::new(), rng.u32(..50));
            let step = [2, 3, 4_000][rng.usize(..3)];
            for _ in 0..200 {
                match rng.u8(..8) {
                    0 if !keys.is_empty() => {
                        keys.remove(rng.usize(..keys.len()));
                        places.moved();
                    }
                    1 => places.fit(&keys),
                    _ => {
                        next += rng.u32(1..step);
                        places.admitted(keys.len(), KeyId(next));
                        keys.push(key(next));
                    }
                }
                if rng.u8(..4) == 0 {
                    places.fit(&keys);
                    let id = KeyId(rng.u32(..next + 3));
                    let want = keys.iter().position(|key| key.def.id == id);
                    assert_eq!(places.of(id, &keys), want, "seed {seed} id {id:?}");
                    let all = keys.iter().enumerate().all(|(at, key)| places.of(key.def.id, &keys) == Some(at));
                    assert!(all, "seed {seed}");
                }
            }
        }
    }
}
