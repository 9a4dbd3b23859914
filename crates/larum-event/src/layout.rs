//! Foresight: which step from one value to the next a reader will take, learnt from the records before.
//!
//! Producers write their records with the same keys in the same order, so what stands between two values (`,"tenant":"`,
//! `"},"outcome":"`) comes again and again. A [`Layout`] remembers such pieces with what the strict reader made of them.
//! Where the whole piece stands again at the same place, its meaning is known without reading it; where it does not,
//! the strict reader reads it, so a layout changes how fast a record is read and never what is read.

use crate::keys::{Key, Scope};

/// Longest piece that is remembered, bytes.
const PIECE_BYTES_MAX: usize = 32;
/// Most pieces that are remembered: 32 KiB.
const PIECES_MAX: usize = 512;
/// Most pieces that may come after one.
const NEXT_MAX: usize = 8;
/// So many pieces find no place before everything is forgotten and learnt anew.
const PATIENCE: u32 = 4096;

/// What a piece leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The value of a key of the contract.
    Value(Key),
    /// The value of another key.
    Unknown,
    /// The end of the event.
    End,
}

/// A step from one value to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The contract's keys that were passed, as a set of bits.
    pub keys: u64,
    /// What comes.
    pub target: Target,
    /// The value is a text, and its opening quote was passed.
    pub is_text: bool,
    /// The object that the value stands in.
    pub scope: Scope,
}

/// A place in a [`Layout`]: the piece that was passed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u16);

impl Place {
    /// Where every event begins.
    pub const BEGIN: Place = Place(0);
    /// A piece was passed that is not remembered: nothing is known of what comes after it.
    pub const LOST: Place = Place(u16::MAX);
}

/// One cache line: what is looked at is what is compared.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Piece {
    bytes: [u8; PIECE_BYTES_MAX],
    /// The pieces that came after it, in the order in which they were met; 0 ends the list.
    next: [u16; NEXT_MAX],
    keys: u64,
    target: Target,
    is_text: bool,
    scope: Scope,
    len: u8,
    /// The event's first piece: producers' orders of keys often differ in it, and pieces that look alike in two orders
    /// are kept apart by it, because other ones come after them.
    first: u16,
}

/// The pieces that were met.
#[derive(Debug)]
pub struct Layout {
    pieces: Vec<Piece>,
    without_place: u32,
}

impl Piece {
    /// `bytes` may have [`PIECE_BYTES_MAX`] at most.
    fn new(bytes: &[u8], step: Step, first: u16) -> Self {
        let Step { keys, target, is_text, scope } = step;
        let (mut padded, len) = ([0; PIECE_BYTES_MAX], bytes.len() as u8);
        padded[..bytes.len()].copy_from_slice(bytes);
        Piece { bytes: padded, next: [0; NEXT_MAX], keys, target, is_text, scope, len, first }
    }

    #[inline(always)]
    fn step(&self) -> Step {
        Step { keys: self.keys, target: self.target, is_text: self.is_text, scope: self.scope }
    }
}

impl Default for Layout {
    fn default() -> Self {
        let step = Step { keys: 0, target: Target::Unknown, is_text: false, scope: Scope::Event };
        Layout { pieces: vec![Piece::new(&[], step, 0)], without_place: 0 }
    }
}

impl Layout {
    /// The piece that stands at the beginning of `rest`, if it once came after `place`: where it leads, what it means
    /// and its length.
    #[inline(always)]
    pub fn foresee(&self, place: Place, rest: &[u8]) -> Option<(Place, Step, usize)> {
        let next = &self.pieces.get(usize::from(place.0))?.next;
        let chunk = rest.first_chunk::<PIECE_BYTES_MAX>();
        for at in next {
            let piece = self.pieces.get(usize::from(*at)).filter(|_| *at != 0)?;
            let len = usize::from(piece.len);
            let is_same = match chunk {
                Some(chunk) => is_same(chunk, &piece.bytes, len),
                None => rest.get(..len) == piece.bytes.get(..len),
            };
            if is_same {
                return Some((Place(*at), piece.step(), len));
            }
        }
        None
    }

    /// Remembers that `bytes`, met after `place`, are the step `step`; gives the place behind them.
    #[cold]
    pub fn learn(&mut self, place: Place, bytes: &[u8], step: Step) -> Place {
        if place == Place::LOST || bytes.len() > PIECE_BYTES_MAX {
            return Place::LOST;
        }
        let known = self.pieces.len();
        let first = if place == Place::BEGIN { known as u16 } else { self.pieces[usize::from(place.0)].first };
        let alike =
            |p: &Piece| p.first == first && p.step() == step && p.bytes.get(..usize::from(p.len)) == Some(bytes);
        let at = self.pieces.iter().position(alike).unwrap_or(known);
        let next = &mut self.pieces[usize::from(place.0)].next;
        let free = next.iter_mut().find(|next| **next == 0);
        let (Some(free), true) = (free, at < PIECES_MAX) else {
            self.without_place += 1;
            if self.without_place == PATIENCE {
                *self = Layout::default();
            }
            return Place::LOST;
        };
        *free = at as u16;
        if at == known {
            self.pieces.push(Piece::new(bytes, step, first));
        }
        Place(at as u16)
    }
}

/// Whether the first `len` bytes are the same, without a branch on `len`.
#[inline(always)]
fn is_same(a: &[u8; PIECE_BYTES_MAX], b: &[u8; PIECE_BYTES_MAX], len: usize) -> bool {
    const KEPT: [(u128, u128); PIECE_BYTES_MAX + 1] = {
        let (mut kept, mut len) = ([(u128::MAX, u128::MAX); PIECE_BYTES_MAX + 1], 0);
        while len < PIECE_BYTES_MAX {
            kept[len] = if len < 16 { ((1 << (8 * len)) - 1, 0) } else { (u128::MAX, (1 << (8 * (len - 16))) - 1) };
            len += 1;
        }
        kept
    };
    let halves = |bytes: &[u8; PIECE_BYTES_MAX]| {
        let (halves, _) = bytes.as_chunks::<16>();
        (u128::from_le_bytes(halves[0]), u128::from_le_bytes(halves[1]))
    };
    let ((a1, a2), (b1, b2), (kept1, kept2)) = (halves(a), halves(b), KEPT[len]);
    ((a1 ^ b1) & kept1) | ((a2 ^ b2) & kept2) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_fills_one_cache_line() {
        assert_eq!(size_of::<Piece>(), 64);
    }

    #[test]
    fn only_the_whole_piece_is_foreseen_and_only_where_it_was_met() {
        let mut layout = Layout::default();
        let step = |target| Step { keys: 1, target, is_text: true, scope: Scope::Event };
        let (time, kind) = (step(Target::Value(Key::Time)), step(Target::Value(Key::Kind)));
        let first = layout.learn(Place::BEGIN, b"{\"time\":\"", time);
        let second = layout.learn(first, b",\"kind\":\"", kind);
        for tail in ["", "0123456789012345678901234567890123456789"] {
            let rest = |text: &str| [text, tail].concat().into_bytes();
            assert_eq!(layout.foresee(Place::BEGIN, &rest("{\"time\":\"")), Some((first, time, 9)));
            assert_eq!(layout.foresee(first, &rest(",\"kind\":\"")), Some((second, kind, 9)));
            for other in [",\"kind\":", ",\"kinD\":\"", "{\"time\":\"", ""] {
                assert_eq!(layout.foresee(first, &rest(other)), None, "{other}");
            }
            assert_eq!(layout.foresee(Place::LOST, &rest(",\"kind\":\"")), None);
        }
    }

    #[test]
    fn a_flood_of_layouts_is_bounded_and_forgotten() {
        let mut layout = Layout::default();
        let step = Step { keys: 0, target: Target::Unknown, is_text: false, scope: Scope::Event };
        let (mut place, mut forgotten) = (Place::BEGIN, 0);
        for n in 0..3 * PATIENCE {
            let before = layout.pieces.len();
            place = layout.learn(place, format!(",\"{n}\":").as_bytes(), step);
            if place == Place::LOST {
                place = Place::BEGIN;
            }
            assert!(layout.pieces.len() <= PIECES_MAX);
            forgotten += u32::from(layout.pieces.len() < before);
        }
        assert!(forgotten >= 1);
    }
}
