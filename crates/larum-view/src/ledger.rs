//! Counts that only grow, as a few packed runs: taking in a run costs next to nothing, and now and then some are merged.

use std::sync::Arc;

use larum_aggregate::Run;
use larum_aggregate::run::{Cell, Weight, merge};
use serde::{Deserialize, Serialize};

/// More runs than this are merged, so that reading looks into few.
const RUNS_MAX: usize = 8;

/// Weights by cell; a cell may stand in several of the runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "W: Weight"))]
pub struct Ledger<W> {
    /// From old and large to new and small.
    runs: Vec<Arc<Run<W>>>,
}

impl<W> Default for Ledger<W> {
    fn default() -> Self {
        Ledger { runs: Vec::new() }
    }
}

impl<W: Weight> Ledger<W> {
    /// Takes in a run.
    pub fn push(&mut self, run: Arc<Run<W>>) {
        if run.is_empty() {
            return;
        }
        self.runs.push(run);
        if self.runs.len() <= RUNS_MAX {
            return;
        }
        // The longest tail that is no smaller than the run before it: then each cell is merged a few times in its life.
        let mut after = 0;
        let mut from = self.runs.len() - 2;
        for (at, run) in self.runs.iter().enumerate().rev() {
            if run.len() <= after {
                from = at.min(from);
            }
            after += run.len();
        }
        let merged = merge(self.runs[from..].iter().map(|run| &**run), Some);
        self.runs.truncate(from);
        self.runs.push(Arc::new(merged));
    }

    /// The runs.
    pub fn runs(&self) -> &[Arc<Run<W>>] {
        &self.runs
    }

    /// Gives up the runs.
    pub fn into_runs(self) -> Vec<Arc<Run<W>>> {
        self.runs
    }

    /// Puts every cell where `to` says, or nowhere; leaves one run.
    pub fn rewrite(&mut self, to: impl Fn(Cell) -> Option<Cell>) {
        let merged = merge(self.runs.iter().map(|run| &**run), to);
        self.runs = if merged.is_empty() { Vec::new() } else { vec![Arc::new(merged)] };
    }

    /// Bytes that the runs take.
    pub fn size_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.size_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::{KeyId, Slot};
    use std::collections::BTreeMap;

    #[test]
    fn few_runs_hold_what_a_map_holds() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut ledger, mut want) = (Ledger::default(), BTreeMap::new());
            for _ in 0..300 {
                let cell = |rng: &mut fastrand::Rng| Cell::new(KeyId(rng.u32(..20)), Slot(rng.u32(..40)));
                let run: BTreeMap<Cell, u64> = (0..rng.usize(..12)).map(|_| (cell(&mut rng), rng.u64(1..5))).collect();
                for (cell, n) in &run {
                    *want.entry(*cell).or_insert(0) += n;
                }
                ledger.push(Arc::new(run.into_iter().collect()));
                assert!(ledger.runs().len() <= RUNS_MAX);
                if rng.u8(..50) == 0 {
                    ledger.rewrite(|cell| (cell.key().0 != 7).then_some(cell));
                    want.retain(|cell, _| cell.key().0 != 7);
                }
            }
            assert!(merge(ledger.runs().iter().map(|run| &**run), Some).cells().eq(want), "seed {seed}");
        }
    }
}
