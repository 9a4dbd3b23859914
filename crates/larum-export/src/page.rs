//! What a scrape answers, in parts that are never put together, and the memory they are written in, which comes back for the
//! next scrape once they are sent.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;
use larum_view::Helpers;
use rayon::ThreadPoolBuilder;

/// Most threads that write a scrape or a push.
const THREADS_MAX: usize = 2;
/// Parts that the keys of a scrape or a push are written in: more than threads, so that none of them has to wait long for
/// another at the end.
const PARTS: usize = 6;

/// Who helps to write scrapes and pushes: nobody where there is one processor, or no thread to be had.
pub fn helpers() -> Option<Helpers> {
    let threads = std::thread::available_parallelism().map_or(1, |processors| processors.get().min(THREADS_MAX));
    let pool = || ThreadPoolBuilder::new().num_threads(threads - 1).thread_name(|_| "scrape".into()).build().ok();
    (threads > 1).then(pool).flatten()
}

/// Writers of a scrape or a push: one for each part.
pub fn writers<W>(new: impl Fn() -> W) -> Vec<W> {
    (0..PARTS).map(|_| new()).collect()
}

/// The answer to a scrape.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Its bytes, part by part; none is empty.
    parts: Vec<Bytes>,
    len: usize,
}

impl Page {
    /// Adds what follows.
    pub(crate) fn push(&mut self, part: impl Into<Bytes>) {
        let part = part.into();
        self.len += part.len();
        self.parts.extend((!part.is_empty()).then_some(part));
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes, part by part.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// All of it in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

impl From<Vec<u8>> for Page {
    fn from(bytes: Vec<u8>) -> Self {
        let mut page = Page::default();
        page.push(bytes);
        page
    }
}

/// Memory of pages that nobody needs any more, by the place of a part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// An empty buffer for the part at this place, in the memory of the one before.
    pub(crate) fn buffer(&self, place: usize) -> Buffer {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Buffer { bytes: spare.get_mut(place).map(std::mem::take).unwrap_or_default(), len: 0 }
    }

    /// What was written for the part at this place; its memory comes back.
    pub(crate) fn lend(&self, place: usize, buffer: Buffer) -> Bytes {
        Bytes::from_owner(Lent { buffer, place, spare: self.clone() })
    }
}

/// A buffer on its way out.
struct Lent {
    buffer: Buffer,
    place: usize,
    spare: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.written()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spare = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = spare.len().max(self.place + 1);
        spare.resize_with(places, Vec::new);
        spare[self.place] = std::mem::take(&mut self.buffer.bytes);
    }
}

/// Things that every scrape makes anew, one after the other, in the memory of those that stood in their places before.
#[derive(Debug)]
pub(crate) struct Places<T> {
    all: Vec<T>,
    used: usize,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Places { all: Vec::new(), used: 0 }
    }
}

impl<T> Places<T> {
    /// Those that were made since they were cleared.
    pub(crate) fn used(&self) -> &[T] {
        &self.all[..self.used]
    }

    /// One of those.
    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.used().get(place)
    }

    /// The same, to be changed.
    #[inline]
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.all[..self.used].get_mut(place)
    }

    /// The next place, with what stood there before if that is still `good`, else with a new one.
    pub(crate) fn next(&mut self, good: impl FnOnce(&T) -> bool, new: impl FnOnce() -> T) -> (usize, &mut T) {
        let place = self.used;
        self.used += 1;
        match self.all.get(place).map(good) {
            Some(true) => {}
            Some(false) => self.all[place] = new(),
            None => self.all.push(new()),
        }
        (place, &mut self.all[place])
    }

    /// Forgets all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }
}

/// Bytes that are written in blocks: copies of a fixed size cost a fraction of those whose size is only known when they are
/// made. What lies behind what was written is left over from earlier and means nothing.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

/// Bytes of a block.
const BLOCK: usize = 32;

impl Buffer {
    /// What was written.
    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no memory yet, or none any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what was written, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Room for so many more bytes.
    #[inline]
    fn room(&mut self, more: usize) -> &mut [u8] {
        let wanted = self.len + more;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.max(self.bytes.len() * 2), 0);
        }
        &mut self.bytes[self.len..]
    }

    /// Writes bytes.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let len = bytes.len();
        if len <= BLOCK {
            // A loop over so few bytes is cheaper than a call.
            for (to, from) in self.room(BLOCK)[..len].iter_mut().zip(bytes) {
                *to = *from;
            }
        } else {
            self.room(len)[..len].copy_from_slice(bytes);
        }
        self.len += len;
    }

    /// Writes what a line ends with, up to a block, and its end.
    #[inline]
    pub(crate) fn put_end(&mut self, bytes: &[u8]) {
        let (to, len) = (self.room(BLOCK + 1), bytes.len().min(BLOCK));
        to[..len].copy_from_slice(&bytes[..len]);
        to[len] = b'\n';
        self.len += len + 1;
    }

    /// Writes a number with nine digits behind the point, without zeros at the end.
    #[inline]
    pub(crate) fn put_decimal(&mut self, whole: u64, billionths: u64) {
        let to = self.room(BLOCK);
        let mut len = write_number(to, whole);
        if billionths > 0 {
            // With a digit before them, in place of which the point comes.
            let point = len;
            len += write_number(&mut to[len..], billionths + 1_000_000_000);
            to[point] = b'.';
            while to[len - 1] == b'0' {
                len -= 1;
            }
        }
        self.len += len;
    }

    /// Takes the last byte back.
    pub(crate) fn step_back(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    /// Writes texts that were split into blocks.
    #[inline]
    pub(crate) fn put_blocks<const N: usize>(&mut self, texts: [&Blocks; N]) {
        let (_, len) = self.copied(texts);
        self.len += len;
    }

    /// Writes texts that were split into blocks, then a number and the end of its line.
    #[inline]
    pub(crate) fn put_line<const N: usize>(&mut self, texts: [&Blocks; N], number: u64) {
        let (to, mut len) = self.copied(texts);
        len += write_number(&mut to[len..], number);
        to[len] = b'\n';
        self.len += len + 1;
    }

    /// Copies texts behind what was written, and says how long they are; there is room for another block.
    #[inline]
    fn copied<const N: usize>(&mut self, texts: [&Blocks; N]) -> (&mut [u8], usize) {
        let blocks: usize = texts.iter().map(|text| text.blocks.len()).sum();
        let (to, mut len) = (self.room((blocks + 1) * BLOCK), 0);
        for text in texts {
            text.copy_to(&mut to[len..]);
            len += text.len;
        }
        (to, len)
    }

    /// Writes lines that begin alike: each goes on with its own text and ends with a number.
    #[inline]
    pub(crate) fn put_lines<'l>(&mut self, start: &Blocks, ends: impl Iterator<Item = (&'l Blocks, u64)>) {
        let beginning = &start.blocks.as_flattened()[..start.len];
        for (end, number) in ends {
            let to = self.room((start.blocks.len() + end.blocks.len() + 1) * BLOCK);
            to[..start.len].copy_from_slice(beginning);
            end.copy_to(&mut to[start.len..]);
            let mut at = start.len + end.len;
            at += write_number(&mut to[at..], number);
            to[at] = b'\n';
            self.len += at + 1;
        }
    }
}

/// Digits of the numbers below 100.
const PAIRS: [[u8; 2]; 100] = {
    let (mut pairs, mut at) = ([[0; 2]; 100], 0);
    while at < 100 {
        pairs[at] = [b'0' + at as u8 / 10, b'0' + at as u8 % 10];
        at += 1;
    }
    pairs
};

/// Writes a number where it is to stand, and says how long it is, up to 20 bytes: digits that are copied have to be waited
/// for.
#[inline]
fn write_number(to: &mut [u8], mut number: u64) -> usize {
    let len = number.checked_ilog10().map_or(1, |log| log as usize + 1);
    let mut at = len;
    while number >= 10 {
        at -= 2;
        to[at..at + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    if at > 0 {
        to[0] = b'0' + number as u8;
    }
    len
}

/// A text split into blocks, the last filled up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    blocks: Vec<[u8; BLOCK]>,
    len: usize,
}

impl Blocks {
    /// Makes it this text.
    pub(crate) fn set(&mut self, text: &[u8]) {
        self.len = text.len();
        self.blocks.clear();
        for chunk in text.chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            self.blocks.push(block);
        }
    }

    /// Makes it these texts, one behind the other.
    pub(crate) fn join<const N: usize>(&mut self, texts: [&Blocks; N]) {
        let blocks: usize = texts.iter().map(|text| text.blocks.len()).sum();
        self.blocks.resize(blocks.max(self.blocks.len()), [0; BLOCK]);
        self.len = 0;
        for text in texts {
            text.copy_to(&mut self.blocks.as_flattened_mut()[self.len..]);
            self.len += text.len;
        }
        self.blocks.truncate(self.len.div_ceil(BLOCK));
    }

    /// True without a byte.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies it, with what the last block has behind it.
    #[inline]
    fn copy_to(&self, to: &mut [u8]) {
        // Most have one block, and need no call.
        let Some((first, rest)) = self.blocks.split_first() else { return };
        let Some((to, behind)) = to.split_first_chunk_mut::<BLOCK>() else { return };
        *to = *first;
        if !rest.is_empty() {
            behind.as_chunks_mut::<BLOCK>().0.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        }
    }

    /// This text.
    pub(crate) fn of(text: &[u8]) -> Blocks {
        let mut blocks = Blocks::default();
        blocks.set(text);
        blocks
    }
}

impl std::io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_blocks_is_what_was_meant() {
        let spare = Spare::default();
        for round in 0..3 {
            let (mut buffer, mut want) = (spare.buffer(1), Vec::new());
            assert_eq!(buffer.bytes.is_empty(), round == 0, "memory comes back");
            for len in 0..200 {
                let text: Vec<u8> = (0..len).map(|at| (at * 7 + len + round) as u8).collect();
                buffer.put(&text);
                buffer.put_blocks([&Blocks::of(&text)]);
                want.extend([&text[..], &text].concat());
                let parts = [u64::MAX, 0, len].map(|whole| [0, 1, 120_000_000, 999_999_999].map(|rest| (whole, rest)));
                for (whole, rest) in parts.into_iter().flatten() {
                    buffer.put_decimal(whole, rest);
                    want.extend(format!("{whole}.{rest:09}").trim_end_matches('0').trim_end_matches('.').bytes());
                    buffer.put(b" ");
                    want.push(b' ');
                }
                for number in [0, 9, 10, 99, 100, 12_345, u64::MAX >> len.min(63), 10_u64.pow(len as u32 % 20)] {
                    let mut twice = Blocks::default();
                    twice.join([&Blocks::of(&text), &Blocks::default(), &Blocks::of(&text)]);
                    buffer.put_line([&Blocks::of(&text), &Blocks::default(), &twice], number);
                    want.extend([&text[..], &text, &text].concat());
                    want.extend(format!("{number}\n").as_bytes());
                }
            }
            assert!(buffer.written() == want);
            let mut page = Page::default();
            page.push(spare.lend(1, buffer));
            page.push(Bytes::new());
            assert!(page.to_vec() == want && page.parts().len() == 1 && page.len() == want.len());
        }
    }
}
