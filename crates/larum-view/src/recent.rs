//! What changed of a source since it was read last: runs that were counted in its totals, and runs that came into its windows
//! or left them. Who reads a source again and again adds these up, and need not read all of it each time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larum_aggregate::Run;

/// Most bytes of runs that wait for being read. Beyond it they are let go, and reading begins anew.
pub const WAITING_MAX_BYTES: usize = 32 << 20;
/// Bytes of a step besides those of its run.
const STEP_BYTES: usize = 96;
/// Most steps that wait: to take more of them key by key costs more than to read everything.
const STEPS_MAX: usize = 2048;
/// Nobody has read yet, or not for long.
const NOBODY: u64 = u64::MAX;

/// Whether something came or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

/// A step.
#[derive(Debug)]
pub(crate) enum Step {
    /// Events were counted.
    Totals(Arc<Run<u64>>),
    /// Latencies were added up, ns.
    SumsNs(Arc<Run<u128>>),
    /// Events came into windows, a bit for each, or left them.
    Windows(u32, Sign, Arc<Run<u64>>),
}

impl Step {
    fn size_bytes(&self) -> usize {
        let of_run = match self {
            Step::Totals(run) | Step::Windows(_, _, run) => run.size_bytes(),
            Step::SumsNs(run) => run.size_bytes(),
        };
        of_run + STEP_BYTES
    }

    /// Nothing, or nothing that any of these windows holds.
    fn is_empty(&self, windows: u32) -> bool {
        match self {
            Step::Windows(of, ..) if of & windows == 0 => true,
            Step::Totals(run) | Step::Windows(_, _, run) => run.is_empty(),
            Step::SumsNs(run) => run.is_empty(),
        }
    }
}

/// Steps in the order in which they were taken.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Tells this state from every other, copies of it included.
    identity: Arc<()>,
    steps: VecDeque<Step>,
    /// Number of the first of them.
    first: u64,
    size_bytes: usize,
    /// Number of the first one that was not read.
    read: AtomicU64,
    /// The windows that are read, a bit for each; above them how often they changed.
    asked: AtomicU64,
}

/// Up to where a reader has read.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    identity: Arc<()>,
    number: u64,
    asked: u64,
}

impl Default for Recent {
    fn default() -> Self {
        let (identity, steps) = (Arc::default(), VecDeque::new());
        let (read, asked) = (AtomicU64::new(NOBODY), AtomicU64::new(0));
        Recent { identity, steps, first: 0, size_bytes: 0, read, asked }
    }
}

// A copy goes its own way, and nobody has read it.
impl Clone for Recent {
    fn clone(&self) -> Self {
        Recent::default()
    }
}

// How a state came about is no part of it.
impl PartialEq for Recent {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Recent {}

impl Recent {
    fn end(&self) -> u64 {
        self.first + self.steps.len() as u64
    }

    /// Notes a step, if somebody reads.
    pub(crate) fn push(&mut self, step: Step) {
        let read = *self.read.get_mut();
        while self.first < read
            && let Some(step) = self.steps.pop_front()
        {
            self.first += 1;
            self.size_bytes -= step.size_bytes();
        }
        if step.is_empty(*self.asked.get_mut() as u32) {
            return;
        }
        if read == NOBODY {
            self.first += 1;
            return;
        }
        self.size_bytes += step.size_bytes();
        self.steps.push_back(step);
        if self.size_bytes > WAITING_MAX_BYTES || self.steps.len() > STEPS_MAX {
            self.lose();
        }
    }

    /// Whatever was read before has to be read anew.
    pub(crate) fn lose(&mut self) {
        self.first = self.end() + 1;
        self.steps.clear();
        self.size_bytes = 0;
        *self.read.get_mut() = NOBODY;
    }

    /// The steps since a place; `None` if they are not known any more.
    pub(crate) fn since(&self, place: &Place) -> Option<impl Iterator<Item = &Step>> {
        let is_same = Arc::ptr_eq(&place.identity, &self.identity) && place.asked == self.asked.load(Ordering::Relaxed);
        let skip = place.number.checked_sub(self.first).filter(|_| is_same)?;
        Some(self.steps.iter().skip(skip as usize))
    }

    /// All that happened was read; from here on these windows will be, a bit for each. Who reads others begins anew.
    pub(crate) fn here(&self, windows: u32) -> Place {
        self.read.store(self.end(), Ordering::Relaxed);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let next = |before: u64| (before as u32 != windows).then_some(((before >> 32) + 1) << 32 | u64::from(windows));
        let asked = match self.asked.fetch_update(set, fetch, next) {
            Ok(before) => next(before).unwrap_or(before),
            Err(same) => same,
        };
        Place { identity: self.identity.clone(), number: self.end(), asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::{Cell, KeyId, Slot};

    fn step(cells: u32) -> Step {
        Step::Totals(Arc::new((0..cells).map(|at| (Cell::new(KeyId(at), Slot(1)), 1)).collect()))
    }

    fn since(recent: &Recent, place: &Place) -> Option<usize> {
        recent.since(place).map(Iterator::count)
    }

    #[test]
    fn nothing_waits_that_nobody_reads_or_that_says_nothing() {
        let mut recent = Recent::default();
        recent.push(step(3));
        assert_eq!((recent.steps.len(), recent.size_bytes), (0, 0));
        let place = recent.here(0b10);
        let run = || Arc::new([(Cell::new(KeyId(1), Slot(1)), 1)].into_iter().collect());
        for step in [step(0), Step::Windows(0, Sign::Plus, run()), Step::Windows(0b101, Sign::Minus, run())] {
            recent.push(step);
        }
        assert_eq!(since(&recent, &place), Some(0));
        recent.push(step(3));
        recent.push(step(2));
        assert_eq!(since(&recent, &place), Some(2));
        let later = recent.here(0b10);
        recent.push(step(1));
        assert_eq!((since(&recent, &place), since(&recent, &later)), (None, Some(1)), "what was read goes");
        assert_eq!(since(&recent.clone(), &later), None, "a copy is another state");
        recent.here(0b11);
        recent.here(0b10);
        assert_eq!(since(&recent, &later), None, "others were read in between");
    }

    #[test]
    fn too_much_is_let_go_and_read_anew() {
        let (mut recent, mut place) = (Recent::default(), None);
        for round in 0..3 {
            place = Some(recent.here(0)).or(place);
            let place = place.as_ref().unwrap();
            for _ in 0..STEPS_MAX {
                recent.push(step(1));
            }
            assert_eq!(since(&recent, place), Some(STEPS_MAX), "round {round}");
            recent.push(step(1));
            assert_eq!(since(&recent, place), None);
            assert_eq!((recent.steps.len(), recent.size_bytes), (0, 0));
        }
    }
}
