//! Counts by pane and slot in few bytes: for panes that are complete and only read from time to time.
//!
//! One block per pane: its number (4 bytes), the size of the rest (4 bytes), then pairs of varints, the distance from the
//! slot before and the count. Most pairs take two or three bytes where an open list takes 16.

use serde::{Deserialize, Serialize};

use crate::slots::{Count, Slot};

/// A place in panes and what was counted there.
pub type PaneCount = Count<(u32, Slot)>;

/// Packed counts, sorted by pane and slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    blocks: Vec<u8>,
    last_pane: Option<u32>,
}

/// Bytes before a block's pairs.
const HEADER_BYTES: usize = 8;

impl Packed {
    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The last pane that it holds.
    pub fn last_pane(&self) -> Option<u32> {
        self.last_pane
    }

    /// Appends sorted counts, each place once, of panes after the last.
    pub fn append(&mut self, counts: &[PaneCount]) {
        let mut added = Vec::new();
        for block in counts.chunk_by(|a, b| a.0.0 == b.0.0) {
            let begin = added.len();
            added.extend_from_slice(&block[0].0.0.to_le_bytes());
            added.extend_from_slice(&[0; 4]);
            let mut before = 0;
            for ((_, slot), count) in block {
                write(&mut added, u64::from(slot.0 - before));
                write(&mut added, *count);
                before = slot.0;
            }
            let size = (added.len() - begin - HEADER_BYTES) as u32;
            added[begin + 4..begin + HEADER_BYTES].copy_from_slice(&size.to_le_bytes());
            self.last_pane = Some(block[0].0.0);
        }
        self.blocks.reserve_exact(added.len());
        self.blocks.extend_from_slice(&added);
    }

    /// Drops the panes before `pane`.
    pub fn drop_before(&mut self, pane: u32) {
        let kept = self.from(pane).len();
        let gone = self.blocks.len() - kept;
        if gone > 0 {
            self.blocks.drain(..gone);
            self.blocks.shrink_to_fit();
        }
        if kept == 0 {
            self.last_pane = None;
        }
    }

    /// Shows the counts of the panes from `pane` on, in order.
    pub fn visit(&self, pane: u32, mut visit: impl FnMut(u32, Slot, u64)) {
        let mut rest = self.from(pane);
        while let Some((pane, mut pairs, after)) = block(rest) {
            let mut slot = 0;
            while let (Some(step), Some(count)) = (read(&mut pairs), read(&mut pairs)) {
                slot += step as u32;
                visit(pane, Slot(slot), count);
            }
            rest = after;
        }
    }

    /// The blocks from the first of `pane` or later on.
    fn from(&self, pane: u32) -> &[u8] {
        let mut rest = self.blocks.as_slice();
        while let Some((.., after)) = block(rest).filter(|(at, ..)| *at < pane) {
            rest = after;
        }
        rest
    }
}

/// The first block's pane and pairs, and what comes after it.
fn block(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (pane, rest) = bytes.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let (pairs, after) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
    Some((u32::from_le_bytes(*pane), pairs, after))
}

/// Writes seven bits a byte, lowest first; the top bit says that more come.
pub fn write(to: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

pub fn read(from: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 63 {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut packed, mut all, mut pane) = (Packed::default(), Vec::new(), rng.u32(..1000));
            for _ in 0..rng.usize(1..20) {
                pane += rng.u32(1..5);
                let slots: std::collections::BTreeSet<u32> =
                    (0..rng.usize(1..30)).map(|_| rng.u32(..1 << 18)).collect();
                let counts = slots.into_iter().map(|slot| ((pane, Slot(slot)), rng.u64(..) >> rng.u32(..64)));
                let counts: Vec<PaneCount> = counts.collect();
                packed.append(&counts);
                all.extend(counts);
                if rng.u8(..4) == 0 {
                    let from = pane.saturating_sub(rng.u32(..10));
                    packed.drop_before(from);
                    all.retain(|count| count.0.0 >= from);
                }
            }
            let from = pane.saturating_sub(rng.u32(..20));
            let mut got = Vec::new();
            packed.visit(from, |pane, slot, count| got.push(((pane, slot), count)));
            let want: Vec<PaneCount> = all.into_iter().filter(|count| count.0.0 >= from).collect();
            assert_eq!(got, want, "seed {seed}");
        }
    }
}
