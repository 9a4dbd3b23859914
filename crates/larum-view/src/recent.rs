//! What changed of a source since it was read last: runs that were counted in its totals, and runs that came into its windows
//! or left them. Who reads a source again and again adds these up, and need not read all of it each time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larum_aggregate::Run;

/// Most bytes of runs that wait for being read. Beyond it they are let go, and reading begins anew.
pub const WAITING_MAX_BYTES: usize = 32 << 20;
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
        match self {
            Step::Totals(run) | Step::Windows(_, _, run) => run.size_bytes(),
            Step::SumsNs(run) => run.size_bytes(),
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
}

/// Up to where a reader has read.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    identity: Arc<()>,
    number: u64,
}

impl Default for Recent {
    fn default() -> Self {
        let (identity, steps) = (Arc::default(), VecDeque::new());
        Recent { identity, steps, first: 0, size_bytes: 0, read: AtomicU64::new(NOBODY) }
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
        if read == NOBODY {
            self.first += 1;
            return;
        }
        self.size_bytes += step.size_bytes();
        self.steps.push_back(step);
        if self.size_bytes > WAITING_MAX_BYTES {
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
        let skip = place.number.checked_sub(self.first).filter(|_| Arc::ptr_eq(&place.identity, &self.identity))?;
        Some(self.steps.iter().skip(skip as usize))
    }

    /// All that happened was read.
    pub(crate) fn here(&self) -> Place {
        self.read.store(self.end(), Ordering::Relaxed);
        Place { identity: self.identity.clone(), number: self.end() }
    }
}
