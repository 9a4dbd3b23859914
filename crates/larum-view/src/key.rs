//! One key: who and where, since when, and who was seen there. What it counted stands in the ledgers of its source.

use larum_aggregate::time::{DISTINCT_WINDOW, PANE_S, WINDOWS, Window};
use larum_aggregate::{Distinct, KeyDef};
use serde::{Deserialize, Serialize};

use crate::distinct::DistinctPanes;
use crate::measure::{Measure, TENANT_MEASURES};
use crate::places::KeyPlaces;
use crate::sums::{KeySums, Sums};

/// One key's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Who and where.
    pub def: KeyDef,
    /// The tick at which its series began, Unix seconds.
    pub started_s: u32,
    /// The last second for which it counted something, or later.
    pub touched_s: u32,
    /// Who logged in, and from where.
    pub(crate) distinct: DistinctPanes,
    /// What its windows add up to.
    #[serde(skip)]
    pub(crate) sums: KeySums,
}

impl KeyView {
    pub(crate) fn new(def: KeyDef, started_s: u32) -> Self {
        KeyView { def, started_s, touched_s: started_s, distinct: DistinctPanes::default(), sums: KeySums::default() }
    }

    /// Logins and token requests in the longest window.
    pub fn events(&self) -> u64 {
        let of = |measure: Measure, sums: &Sums<TENANT_MEASURES>| sums.get(measure as usize, WINDOWS.len() - 1);
        self.sums.0.as_ref().map_or(0, |sums| of(Measure::Login, sums) + of(Measure::Token, sums))
    }

    /// Distinct accounts or sources of a window that ends with the pane of second `end_s`; 0 for windows longer than
    /// [`DISTINCT_WINDOW`].
    pub fn distinct(&self, what: Distinct, window: Window, end_s: u32) -> u64 {
        if window > DISTINCT_WINDOW {
            return 0;
        }
        self.distinct.count(what, window.start_s(end_s) / PANE_S, end_s / PANE_S)
    }
}

/// Visits keys, in any order and each as often as it is wanted; `places` fits them.
pub fn visit_keys<W>(
    places: &KeyPlaces,
    keys: &mut [KeyView],
    wanted: impl Iterator<Item = W>,
    id: impl Fn(&W) -> larum_aggregate::KeyId,
    mut visit: impl FnMut(&mut KeyView, W),
) {
    for wanted in wanted {
        let id = id(&wanted);
        match places.of(id, keys).and_then(|at| keys.get_mut(at)) {
            Some(key) => visit(key, wanted),
            None => debug_assert!(false, "something was counted for the unknown key {id:?}"),
        }
    }
}
