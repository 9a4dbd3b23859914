//! One key: who and where, since when, and who was seen there. What it counted stands in the ledgers of its source.

use larum_aggregate::KeyDef;
use larum_aggregate::time::{DISTINCT_WINDOW, PANE_S, WINDOWS, Window};
use serde::{Deserialize, Serialize};

use crate::distinct::{Counter, DistinctPanes};
use crate::measure::{Measure, TENANT_MEASURES};
use crate::places::KeyPlaces;
use crate::sums::{KeySums, Sums, place_of};

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

    /// Logins of a window, as of the tick.
    pub fn logins(&self, window: Window) -> Logins {
        let Some((sums, at)) = self.sums.0.as_ref().zip(place_of(window)) else { return Logins::default() };
        let of = |measure: Measure| sums.get(measure as usize, at);
        Logins {
            all: of(Measure::Login),
            succeeded: of(Measure::LoginSuccess),
            failed: of(Measure::LoginFailure),
            denied: of(Measure::LoginDenied),
        }
    }

    /// Distinct accounts and sources of a window that ends with the pane of second `end_s`, by [`Distinct`](larum_aggregate::Distinct); `None` for
    /// windows longer than [`DISTINCT_WINDOW`].
    pub fn distinct(&self, window: Window, end_s: u32, counter: &mut Counter) -> Option<[u64; 2]> {
        self.distincts([window].into_iter(), end_s, counter).next()
    }

    /// The same of several windows, the shortest first, up to the first that is too long.
    pub fn distincts<'k>(
        &'k self,
        windows: impl Iterator<Item = Window> + Clone + 'k,
        end_s: u32,
        counter: &'k mut Counter,
    ) -> impl Iterator<Item = [u64; 2]> + 'k {
        let short = windows.take_while(|window| *window <= DISTINCT_WINDOW);
        let firsts = short.map(move |window| window.start_s(end_s) / PANE_S);
        let last = end_s / PANE_S;
        let mut counting = self.distinct.counting(firsts.clone().last().unwrap_or(last), last, counter);
        firsts.map(move |first| counting.back_to(first))
    }
}

/// Logins by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Those that ended otherwise included.
    pub all: u64,
    /// Done.
    pub succeeded: u64,
    /// Went wrong.
    pub failed: u64,
    /// Refused by a rule.
    pub denied: u64,
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
