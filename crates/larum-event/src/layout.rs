//! Foresight: which step from one value to the next a reader will take, learnt from the records before.
//!
//! Producers write their records with the same keys in the same order, so what stands between two values (`,"tenant":"`,
//! `"},"outcome":"`) comes again and again. A [`Layout`] remembers such pieces with what the strict reader made of them.
//! Where the whole piece stands again at the same place, its meaning is known without reading it; where it does not,
//! the strict reader reads it, so a layout changes how fast a record is read and never what is read.

use wide::u8x16;

use crate::keys::{Key, Scope};

/// Longest piece that is remembered, bytes.
const PIECE_BYTES_MAX: usize = 32;
/// Most pieces that are remembered: 32 KiB.
const PIECES_MAX: usize = 512;
/// Most pieces that may come after one.
const NEXT_MAX: usize = 8;
/// So many pieces find no place before everything is forgotten and learnt anew.
const PATIENCE: u32 = 4096;

/// A step from one value to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The contract's keys that were passed, as a set of bits.
    pub keys: u64,
    /// Whose value comes.
    pub key: Key,
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
    /// A bit for each byte of the piece.
    mask: u32,
    key: Key,
    is_text: bool,
    scope: Scope,
}

/// The pieces that were met.
#[derive(Debug)]
pub struct Layout {
    pieces: Vec<Piece>,
    /// By piece, the event's first piece: producers' orders of keys often differ in it, and pieces that look alike in
    /// two orders are kept apart by it, because other ones come after them.
    firsts: Vec<u16>,
    without_place: u32,
}

impl Piece {
    /// `bytes` may have [`PIECE_BYTES_MAX`] at most.
    fn new(bytes: &[u8], step: Step) -> Self {
        let Step { keys, key, is_text, scope } = step;
        let mut padded = [0; PIECE_BYTES_MAX];
        padded[..bytes.len()].copy_from_slice(bytes);
        let mask = ((1u64 << bytes.len()) - 1) as u32;
        Piece { bytes: padded, next: [0; NEXT_MAX], keys, mask, key, is_text, scope }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        (u32::BITS - self.mask.leading_zeros()) as usize
    }

    /// Whether the piece stands at the beginning of `chunk`, without a branch on its length.
    #[inline(always)]
    fn begins(&self, chunk: &[u8; PIECE_BYTES_MAX]) -> bool {
        let ([a1, a2], [b1, b2]) = (halves(chunk), halves(&self.bytes));
        let same = a1.simd_eq(b1).to_bitmask() | a2.simd_eq(b2).to_bitmask() << 16;
        !same & self.mask == 0
    }

    #[inline(always)]
    fn step(&self) -> Step {
        Step { keys: self.keys, key: self.key, is_text: self.is_text, scope: self.scope }
    }
}

impl Default for Layout {
    fn default() -> Self {
        let step = Step { keys: 0, key: Key::Unknown, is_text: false, scope: Scope::Event };
        Layout { pieces: vec![Piece::new(&[], step)], firsts: vec![0], without_place: 0 }
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
            let is_same = match chunk {
                Some(chunk) => piece.begins(chunk),
                None => rest.get(..piece.len()) == piece.bytes.get(..piece.len()),
            };
            if is_same {
                return Some((Place(*at), piece.step(), piece.len()));
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
        let first = if place == Place::BEGIN { known as u16 } else { self.firsts[usize::from(place.0)] };
        let free = self.pieces[usize::from(place.0)].next.iter().position(|next| *next == 0);
        // Once it is full nothing is looked for, so that a flood of layouts costs next to nothing.
        let (Some(free), true) = (free, known < PIECES_MAX) else {
            self.without_place += 1;
            if self.without_place == PATIENCE {
                *self = Layout::default();
            }
            return Place::LOST;
        };
        let alike = |(piece, of): (&Piece, &u16)| {
            *of == first && piece.step() == step && piece.bytes.get(..piece.len()) == Some(bytes)
        };
        let at = self.pieces.iter().zip(&self.firsts).position(alike).unwrap_or(known);
        self.pieces[usize::from(place.0)].next[free] = at as u16;
        if at == known {
            self.pieces.push(Piece::new(bytes, step));
            self.firsts.push(first);
        }
        Place(at as u16)
    }
}

#[inline(always)]
fn halves(bytes: &[u8; PIECE_BYTES_MAX]) -> [u8x16; 2] {
    let (halves, _) = bytes.as_chunks::<16>();
    [u8x16::new(halves[0]), u8x16::new(halves[1])]
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
        let step = |key| Step { keys: 1, key, is_text: true, scope: Scope::Event };
        let (time, kind) = (step(Key::Time), step(Key::Kind));
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
        let step = Step { keys: 0, key: Key::Unknown, is_text: false, scope: Scope::Event };
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
