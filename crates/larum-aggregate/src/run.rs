//! Counts by key and slot, sorted and packed: what a group of a Delta holds, and what a view keeps of it.
//!
//! A [`Run`] is a sequence of blocks, one per key: the distance from the key before, then cells. A cell is the distance
//! from the slot before with a bit for "another cell of this key follows", and its weight. All are varints, so most cells
//! take four bytes where an open list takes sixteen; runs are read and merged from front to back, which memory likes. Who
//! wants few keys of many begins at an anchor near each: a block now and then whose place is known.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::delta::KeyId;
use crate::histogram::{BUCKETS, Bucket, NOT_MEASURED};

/// A code and a latency bucket together: an event is counted once, in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// Bits of a slot that hold the bucket.
const BUCKET_BITS: u32 = 9;
/// Stands for [`NOT_MEASURED`] in these bits.
const UNMEASURED: u32 = (1 << BUCKET_BITS) - 1;
const _: () = assert!(BUCKETS < UNMEASURED as usize);

impl Slot {
    /// The slot of a code and a bucket.
    #[inline]
    pub const fn of(code: u16, bucket: Bucket) -> Slot {
        let bucket = if bucket == NOT_MEASURED { UNMEASURED } else { bucket as u32 };
        Slot((code as u32) << BUCKET_BITS | bucket)
    }

    /// The code; opaque here.
    #[inline]
    pub const fn code(self) -> u16 {
        (self.0 >> BUCKET_BITS) as u16
    }

    /// The bucket, if the event was measured.
    #[inline]
    pub fn bucket(self) -> Option<Bucket> {
        let bucket = self.0 & UNMEASURED;
        (bucket != UNMEASURED).then_some(bucket as Bucket)
    }

    /// The same code, not measured: where counts are kept and histograms are not.
    #[inline]
    pub const fn without_bucket(self) -> Slot {
        Slot(self.0 | UNMEASURED)
    }
}

/// Where something is counted: key and slot in one number that sorts like both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(u64);

impl Cell {
    /// The cell of a key and a slot.
    #[inline]
    pub const fn new(key: KeyId, slot: Slot) -> Cell {
        Cell((key.0 as u64) << 32 | slot.0 as u64)
    }

    /// The key.
    #[inline]
    pub const fn key(self) -> KeyId {
        KeyId((self.0 >> 32) as u32)
    }

    /// The slot.
    #[inline]
    pub const fn slot(self) -> Slot {
        Slot(self.0 as u32)
    }
}

/// What is added up in a cell.
pub trait Weight: Copy + PartialEq {
    /// The sum.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// Appends it as a varint.
    fn write(self, to: &mut Vec<u8>);
    /// Reads it back; `None` where the bytes end.
    fn read(from: &mut &[u8]) -> Option<Self>;
}

/// Events, weighed.
impl Weight for u64 {
    #[inline]
    fn plus(self, other: u64) -> u64 {
        self + other
    }

    #[inline]
    fn write(mut self, to: &mut Vec<u8>) {
        while self > 0x7f {
            to.push(self as u8 | 0x80);
            self >>= 7;
        }
        to.push(self as u8);
    }

    #[inline]
    fn read(from: &mut &[u8]) -> Option<u64> {
        let (first, rest) = from.split_first()?;
        *from = rest;
        let mut value = u64::from(first & 0x7f);
        let (mut more, mut shift) = (first & 0x80 != 0, 7);
        while more && shift < 64 {
            let (byte, rest) = from.split_first()?;
            *from = rest;
            value |= u64::from(byte & 0x7f) << shift;
            more = byte & 0x80 != 0;
            shift += 7;
        }
        Some(value)
    }
}

/// Sums of latencies, ns: two 64-bit halves, the higher one almost always zero.
impl Weight for u128 {
    #[inline]
    fn plus(self, other: u128) -> u128 {
        self + other
    }

    #[inline]
    fn write(self, to: &mut Vec<u8>) {
        (self as u64).write(to);
        ((self >> 64) as u64).write(to);
    }

    #[inline]
    fn read(from: &mut &[u8]) -> Option<u128> {
        let (low, high) = (u64::read(from)?, u64::read(from)?);
        Some(u128::from(low) | u128::from(high) << 64)
    }
}

/// Weights by cell, sorted, each cell once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Packed", bound(deserialize = "W: Weight"))]
pub struct Run<W> {
    #[serde(with = "crate::delta::bytes")]
    bytes: Vec<u8>,
    cells: u32,
    /// Follow from the bytes.
    #[serde(skip)]
    anchors: Vec<Anchor>,
    of: PhantomData<W>,
}

/// A [`Run`] as it is written.
#[derive(Deserialize)]
struct Packed {
    #[serde(with = "crate::delta::bytes")]
    bytes: Vec<u8>,
    cells: u32,
}

/// A block whose cells can be read without what stands before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    key: u32,
    /// Where its first cell begins.
    at: u32,
}

/// Bytes from one anchor to the next, at least.
const ANCHOR_BYTES: usize = 512;

/// Notes an anchor if the last one is far behind the block of `key`, whose cells begin at `at`.
#[inline]
fn anchor(anchors: &mut Vec<Anchor>, key: u32, at: usize) {
    let last = anchors.last().map_or(0, |last| last.at as usize);
    if at >= last + ANCHOR_BYTES
        && let Ok(at) = u32::try_from(at)
    {
        anchors.push(Anchor { key, at });
    }
}

impl<W: Weight> From<Packed> for Run<W> {
    fn from(Packed { bytes, cells }: Packed) -> Self {
        let mut run = Run { bytes, cells, anchors: Vec::new(), of: PhantomData };
        run.anchors = run.find_anchors();
        run.anchors.shrink_to_fit();
        run
    }
}

impl<W> Default for Run<W> {
    fn default() -> Self {
        Run { bytes: Vec::new(), cells: 0, anchors: Vec::new(), of: PhantomData }
    }
}

impl<W: Weight> Run<W> {
    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.cells as usize
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.cells == 0
    }

    /// Bytes that it takes.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.anchors)
    }

    /// Its cells in order.
    #[inline]
    pub fn cells(&self) -> Cells<'_, W> {
        Cells { rest: &self.bytes, key: 0, slot: 0, more: false, of: PhantomData }
    }

    /// Its cells from a key on, and a few before them; and the key from which on this would pass over more.
    pub fn cells_near(&self, key: KeyId) -> (Cells<'_, W>, Option<KeyId>) {
        let after = self.anchors.partition_point(|anchor| anchor.key <= key.0);
        let next = self.anchors.get(after).map(|anchor| KeyId(anchor.key));
        let anchor = after.checked_sub(1).and_then(|at| self.anchors.get(at));
        let cells = anchor.and_then(|Anchor { key, at }| {
            let rest = self.bytes.get(*at as usize..)?;
            // As if a cell of the key had been read.
            Some(Cells { rest, key: *key, slot: 0, more: true, of: PhantomData })
        });
        (cells.unwrap_or_else(|| self.cells()), next)
    }

    fn find_anchors(&self) -> Vec<Anchor> {
        let (mut anchors, mut cells) = (Vec::new(), self.cells());
        if self.bytes.len() >= ANCHOR_BYTES {
            while cells.begin_key().is_some() {
                anchor(&mut anchors, cells.key, self.bytes.len() - cells.rest.len());
                while cells.cell().is_some() && cells.more {}
            }
        }
        anchors
    }

    /// Its keys in order, each once.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> {
        let mut cells = self.cells();
        std::iter::from_fn(move || {
            let (cell, _) = cells.next()?;
            while cells.more {
                cells.next()?;
            }
            Some(cell.key())
        })
    }
}

impl<W: Weight> FromIterator<(Cell, W)> for Run<W> {
    /// Of sorted cells; equal ones are added up.
    fn from_iter<I: IntoIterator<Item = (Cell, W)>>(cells: I) -> Self {
        let mut writer = RunWriter::default();
        cells.into_iter().for_each(|(cell, weight)| writer.push(cell, weight));
        writer.finish()
    }
}

/// Reads a [`Run`].
#[derive(Clone, Debug)]
pub struct Cells<'r, W> {
    rest: &'r [u8],
    key: u32,
    slot: u32,
    more: bool,
    of: PhantomData<W>,
}

impl<W: Weight> Cells<'_, W> {
    /// Reads on to the next key.
    #[inline]
    fn begin_key(&mut self) -> Option<()> {
        self.key = self.key.wrapping_add(u64::read(&mut self.rest)? as u32);
        self.slot = 0;
        Some(())
    }

    /// Reads a cell of the key.
    #[inline]
    fn cell(&mut self) -> Option<(Cell, W)> {
        let step = u64::read(&mut self.rest)?;
        self.more = step & 1 != 0;
        self.slot = self.slot.wrapping_add((step >> 1) as u32);
        Some((Cell::new(KeyId(self.key), Slot(self.slot)), W::read(&mut self.rest)?))
    }
}

impl<W: Weight> Iterator for Cells<'_, W> {
    type Item = (Cell, W);

    #[inline]
    fn next(&mut self) -> Option<(Cell, W)> {
        if !self.more {
            self.begin_key()?;
        }
        self.cell()
    }
}

/// Bytes that a cell usually takes at most.
const CELL_BYTES: usize = 8;

/// Writes a [`Run`], cell by cell.
#[derive(Debug)]
pub struct RunWriter<W> {
    run: Run<W>,
    /// The cell that was pushed last; it is written once it is known what follows.
    open: Option<(Cell, W)>,
    /// Key and slot that the next distances are from.
    at: (u32, u32),
    /// The last cell written said that another of its key follows.
    more: bool,
}

impl<W> Default for RunWriter<W> {
    fn default() -> Self {
        RunWriter { run: Run::default(), open: None, at: (0, 0), more: false }
    }
}

impl<W: Weight> RunWriter<W> {
    /// A writer with memory for about so many cells.
    pub fn with_room(cells: usize) -> Self {
        let mut writer = RunWriter::default();
        writer.run.bytes.reserve(cells * CELL_BYTES);
        writer
    }

    /// Adds a cell that is not before the last one.
    #[inline]
    pub fn push(&mut self, cell: Cell, weight: W) {
        match &mut self.open {
            Some((open, sum)) if *open == cell => *sum = sum.plus(weight),
            Some((open, _)) => {
                debug_assert!(*open < cell, "cells come sorted");
                let more = open.key() == cell.key();
                self.write(more);
                self.open = Some((cell, weight));
            }
            None => self.open = Some((cell, weight)),
        }
    }

    #[inline]
    fn write(&mut self, more: bool) {
        let Some((cell, weight)) = self.open.take() else { return };
        let (key, slot) = (cell.key().0, cell.slot().0);
        let bytes = &mut self.run.bytes;
        if !self.more {
            u64::from(key - self.at.0).write(bytes);
            self.at = (key, 0);
            anchor(&mut self.run.anchors, key, bytes.len());
        }
        (u64::from(slot - self.at.1) << 1 | u64::from(more)).write(bytes);
        weight.write(bytes);
        self.at.1 = slot;
        self.more = more;
        self.run.cells += 1;
    }

    /// The run; its memory may have room to spare.
    pub fn finish(mut self) -> Run<W> {
        self.write(false);
        self.run
    }
}

/// Adds up cells of several runs, reading all of them from front to back at once. `to` says where a cell goes, or that it
/// goes nowhere; it must keep the order of cells.
pub fn merge<'r, W: Weight + 'r>(
    runs: impl IntoIterator<Item = &'r Run<W>>,
    to: impl Fn(Cell) -> Option<Cell>,
) -> Run<W> {
    let mut cursors: Vec<Cells<'r, W>> = runs.into_iter().map(Run::cells).collect();
    let next = |cells: &mut Cells<'r, W>| cells.find_map(|(cell, weight)| Some((to(cell)?, weight)));
    // The first cell of each run, lowest first.
    let mut heads: BinaryHeap<Head<W>> = BinaryHeap::with_capacity(cursors.len());
    for (run, cells) in cursors.iter_mut().enumerate() {
        heads.extend(next(cells).map(|(cell, weight)| Head { cell, weight, run: run as u32 }));
    }
    let mut writer = RunWriter::default();
    // A single run, or the last that is left, has nobody to be compared with.
    while heads.len() > 1
        && let Some(mut head) = heads.peek_mut()
    {
        writer.push(head.cell, head.weight);
        match cursors.get_mut(head.run as usize).and_then(&next) {
            Some((cell, weight)) => (head.cell, head.weight) = (cell, weight),
            None => drop(PeekMut::pop(head)),
        }
    }
    if let Some(Head { cell, weight, run }) = heads.pop() {
        writer.push(cell, weight);
        let rest = cursors.get_mut(run as usize).into_iter().flat_map(|cells| std::iter::from_fn(|| next(cells)));
        rest.for_each(|(cell, weight)| writer.push(cell, weight));
    }
    // It is kept for long, so in memory of its size.
    let mut run = writer.finish();
    run.bytes.shrink_to_fit();
    run.anchors.shrink_to_fit();
    run
}

/// The cell of a run that comes next; the lowest is the greatest.
struct Head<W> {
    cell: Cell,
    weight: W,
    run: u32,
}

impl<W> PartialEq for Head<W> {
    fn eq(&self, other: &Self) -> bool {
        self.cell == other.cell
    }
}

impl<W> Eq for Head<W> {}

impl<W> PartialOrd for Head<W> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> Ord for Head<W> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.cell.cmp(&self.cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn cells(rng: &mut fastrand::Rng, most: usize) -> BTreeMap<Cell, u64> {
        let cell = |rng: &mut fastrand::Rng| {
            let key = if rng.bool() { rng.u32(..8) } else { rng.u32(..) };
            Cell::new(KeyId(key), Slot(rng.u32(..) >> rng.u32(..32)))
        };
        (0..rng.usize(..most)).map(|_| (cell(rng), rng.u64(..) >> rng.u32(8..64))).collect()
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let want = cells(&mut rng, 60);
            let run: Run<u64> = want.clone().into_iter().collect();
            assert_eq!(run.len(), want.len());
            assert!(run.cells().eq(want.clone()), "seed {seed}");
            let mut keys: Vec<KeyId> = want.keys().map(|cell| cell.key()).collect();
            keys.dedup();
            assert!(run.keys().eq(keys), "seed {seed}");
            let sums: Run<u128> = want.iter().map(|(cell, n)| (*cell, u128::from(*n) << 37)).collect();
            assert!(sums.cells().eq(want.into_iter().map(|(cell, n)| (cell, u128::from(n) << 37))), "seed {seed}");
        }
    }

    #[test]
    fn any_key_is_found_from_the_anchor_before_it() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let want: BTreeMap<Cell, u64> = (0..20).flat_map(|_| cells(&mut rng, 100)).collect();
            let run: Run<u64> = want.clone().into_iter().collect();
            assert!(want.is_empty() || run.anchors.len() > 2, "seed {seed}");
            assert_eq!(run.anchors, run.find_anchors(), "seed {seed}");
            let keys: Vec<KeyId> = run.keys().chain((0..50).map(|_| KeyId(rng.u32(..)))).collect();
            for key in keys {
                let (near, next) = run.cells_near(key);
                let passed = near.clone().take_while(|(cell, _)| cell.key() < key).count();
                assert!(passed <= ANCHOR_BYTES / 3 + 100, "seed {seed}");
                let of = |cells: Cells<'_, u64>| cells.filter(|(cell, _)| cell.key() >= key).collect::<Vec<_>>();
                assert_eq!(of(near), of(run.cells()), "seed {seed}");
                let first = |key| run.cells_near(key).0.next().map(|(cell, _)| cell.key());
                assert!(next.is_none_or(|next| next > key && first(next) == Some(next)), "seed {seed}");
            }
            let bytes = postcard::to_allocvec(&run).unwrap();
            assert_eq!(postcard::from_bytes::<Run<u64>>(&bytes).unwrap(), run);
        }
    }

    #[test]
    fn merging_adds_up_as_a_map_does() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let maps: Vec<_> = (0..rng.usize(..6)).map(|_| cells(&mut rng, 40)).collect();
            let runs: Vec<Run<u64>> = maps.iter().map(|map| map.clone().into_iter().collect()).collect();
            let to = |cell: Cell| (cell.key().0 != 3).then(|| Cell::new(cell.key(), cell.slot().without_bucket()));
            let mut want = BTreeMap::new();
            for (cell, n) in maps.into_iter().flatten() {
                if let Some(cell) = to(cell) {
                    *want.entry(cell).or_insert(0) += n;
                }
            }
            assert!(merge(&runs, to).cells().eq(want), "seed {seed}");
        }
    }

    #[test]
    fn damaged_bytes_end_a_run() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut with_anchors = 0;
        for _ in 0..2_000 {
            let len = if rng.bool() { 40 } else { 4 * ANCHOR_BYTES };
            let bytes: Vec<u8> = (0..rng.usize(..len)).map(|_| rng.u8(..)).collect();
            let run = Run::<u64>::from(Packed { bytes, cells: 9 });
            assert!(run.cells().count() <= len);
            assert!(run.keys().count() <= len);
            assert!(run.cells_near(KeyId(rng.u32(..))).0.count() <= len);
            with_anchors += usize::from(!run.anchors.is_empty());
        }
        assert!(with_anchors > 100);
    }

    #[test]
    fn slots_come_apart_again() {
        let slot = Slot::of(7, 9);
        assert_eq!((slot.code(), slot.bucket()), (7, Some(9)));
        assert_eq!((slot.without_bucket().code(), slot.without_bucket().bucket()), (7, None));
        assert_eq!(Slot::of(7, NOT_MEASURED), slot.without_bucket());
    }
}
