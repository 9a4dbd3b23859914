//! Short texts as numbers, and closed lists of them as perfect hash tables made at compile time.
//!
//! Which key comes next in a record can hardly be foretold, so every comparison that branches on it costs a
//! misprediction. Here a look-up is a multiplication, a load and one comparison that nearly always succeeds.

/// A text of up to [`BYTES_MAX`] bytes: its length, its first eight bytes and the eight after them, zero-padded.
pub type Words = (usize, u64, u64);

/// Longest text that has words.
pub const BYTES_MAX: usize = 16;

/// The words of `text` at compile time.
const fn of_text(text: &str) -> Words {
    let (bytes, mut words, mut at) = (text.as_bytes(), [0u64; 2], 0);
    assert!(bytes.len() <= BYTES_MAX);
    while at < bytes.len() {
        words[at / 8] |= (bytes[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    (bytes.len(), words[0], words[1])
}

/// The words of `bytes[start..end]`; none if that is longer than any word.
///
/// What follows in `bytes` is read along and cut off, which is quicker than copying a length that varies.
#[inline(always)]
pub fn of(bytes: &[u8], start: usize, end: usize) -> Option<Words> {
    let len = end.checked_sub(start).filter(|len| *len <= BYTES_MAX)?;
    let both = match bytes.get(start..)?.first_chunk::<BYTES_MAX>() {
        Some(chunk) => u128::from_le_bytes(*chunk),
        None => {
            let mut chunk = [0; BYTES_MAX];
            chunk[..len].copy_from_slice(bytes.get(start..end)?);
            u128::from_le_bytes(chunk)
        }
    };
    let (first, second) = KEPT[len];
    Some((len, both as u64 & first, (both >> 64) as u64 & second))
}

/// By length: which bits of the two words belong to the text.
const KEPT: [(u64, u64); BYTES_MAX + 1] = {
    let (mut kept, mut len) = ([(u64::MAX, u64::MAX); BYTES_MAX + 1], 0);
    while len < BYTES_MAX {
        let bits = (1u128 << (len * 8)) - 1;
        kept[len] = (bits as u64, (bits >> 64) as u64);
        len += 1;
    }
    kept
};

/// A closed list of `N` texts.
pub struct Table<const N: usize> {
    words: [Words; N],
    /// Place in `words` by hash; `N` where there is none.
    slots: [u8; 256],
    multiplier: u64,
}

const fn hash(words: Words, multiplier: u64) -> usize {
    ((words.1 ^ words.2.rotate_left(23) ^ ((words.0 as u64) << 58)).wrapping_mul(multiplier) >> 56) as usize
}

impl<const N: usize> Table<N> {
    /// Looks for a multiplier under which no two texts meet.
    pub const fn new(texts: [&str; N]) -> Self {
        assert!(N < 256);
        let mut words = [(0, 0, 0); N];
        let mut at = 0;
        while at < N {
            words[at] = of_text(texts[at]);
            at += 1;
        }
        let mut multiplier = 0x9E37_79B9_7F4A_7C15u64;
        loop {
            let (mut slots, mut at, mut met) = ([N as u8; 256], 0, false);
            while at < N && !met {
                let slot = hash(words[at], multiplier);
                met = slots[slot] != N as u8;
                slots[slot] = at as u8;
                at += 1;
            }
            if !met {
                return Table { words, slots, multiplier };
            }
            multiplier = multiplier.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(2);
        }
    }

    /// The place of a text in the list.
    #[inline]
    pub fn find(&self, words: Words) -> Option<usize> {
        let at = usize::from(self.slots[hash(words, self.multiplier)]);
        (*self.words.get(at)? == words).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_and_others_are_not() {
        const TEXTS: [&str; 4] = ["", "time", "sixteen_bytes_ok", "enqueued_time"];
        static TABLE: Table<4> = Table::new(TEXTS);
        for (at, text) in TEXTS.iter().enumerate() {
            for record in [text.to_string(), format!("{text}\":1234567890123456789")] {
                let words = of(record.as_bytes(), 0, text.len()).unwrap();
                assert_eq!(TABLE.find(words), Some(at), "{text}");
            }
        }
        for other in ["tim", "times", "enqueued_tim", "enqueued_timf", "\0"] {
            assert_eq!(TABLE.find(of(other.as_bytes(), 0, other.len()).unwrap()), None, "{other}");
        }
        assert_eq!(of(b"seventeen_bytes__", 0, 17), None);
    }
}
