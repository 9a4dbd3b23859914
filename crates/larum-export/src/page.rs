//! What a scrape answers, in parts that are never put together, and the memory they are written in, which comes back for the
//! next scrape once they are sent.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;

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

/// Bytes that are written in blocks: copies of a fixed size cost a fraction of those whose size is only known when they are
/// made. What lies behind what was written is left over from earlier and means nothing.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

/// Bytes that a [`Block`] has room for.
pub(crate) const BLOCK: usize = 32;

/// A short text, to be written as a whole block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    bytes: [u8; BLOCK],
    len: usize,
}

impl Block {
    /// A number and the end of its line.
    #[inline]
    pub(crate) fn line_end(number: impl itoa::Integer) -> Block {
        let mut digits = itoa::Buffer::new();
        let mut block = Block::of(digits.format(number).as_bytes());
        // The longest 64-bit number takes 20 bytes.
        if let Some(end) = block.bytes.get_mut(block.len) {
            *end = b'\n';
            block.len += 1;
        }
        block
    }

    /// Of at most [`BLOCK`] bytes; of more only the first.
    pub(crate) fn of(text: &[u8]) -> Block {
        let (mut bytes, len) = ([0; BLOCK], text.len().min(BLOCK));
        bytes[..len].copy_from_slice(&text[..len]);
        Block { bytes, len }
    }
}

impl Buffer {
    /// What was written.
    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn len(&self) -> usize {
        self.len
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

    /// Takes the last byte back.
    pub(crate) fn step_back(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    /// Writes a block.
    #[inline]
    pub(crate) fn put_block(&mut self, block: &Block) {
        self.room(BLOCK)[..BLOCK].copy_from_slice(&block.bytes);
        self.len += block.len;
    }

    /// Writes a text that was split into blocks.
    #[inline]
    pub(crate) fn put_blocks(&mut self, text: &Blocks) {
        let to = self.room(text.blocks.len() * BLOCK).as_chunks_mut::<BLOCK>().0;
        to.iter_mut().zip(&text.blocks).for_each(|(to, from)| *to = *from);
        self.len += text.len;
    }
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
        self.blocks.extend(text.chunks(BLOCK).map(|chunk| Block::of(chunk).bytes));
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
                buffer.put_blocks(&Blocks::of(&text));
                buffer.put_block(&Block::of(&text));
                want.extend([&text, &text, &text[..text.len().min(BLOCK)]].concat());
            }
            assert!(buffer.written() == want);
            let mut page = Page::default();
            page.push(spare.lend(1, buffer));
            page.push(Bytes::new());
            assert!(page.to_vec() == want && page.parts().len() == 1 && page.len() == want.len());
        }
    }
}
