//! Blobs in chunks: redb rounds a value up to a power of two of its pages, so large ones are cut to sizes that fit.

use redb::{ReadableTable, Table, TableDefinition};

use crate::error::StoreError;

/// Chunks of a blob by (blob, number).
pub type Chunks = TableDefinition<'static, (u64, u32), &'static [u8]>;

/// Bytes of a chunk: a power of two of pages, less what redb adds.
const CHUNK_BYTES: usize = 256 * 1024 - 128;
/// Length and CRC-32 in front of the first chunk.
const HEAD_BYTES: usize = 12;

/// A blob on its way into the store: head and content, cut as it goes. The content is not copied.
pub struct Writer<B> {
    head: [u8; HEAD_BYTES],
    content: B,
    /// Bytes written, those of the head included.
    written: usize,
    chunks: u32,
}

impl<B: AsRef<[u8]>> Writer<B> {
    /// Puts the head in front of `content`.
    pub fn new(content: B) -> Self {
        let (mut head, bytes) = ([0; HEAD_BYTES], content.as_ref());
        head[..8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        head[8..].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
        Writer { head, content, written: 0, chunks: 0 }
    }

    /// Writes up to `chunks` more chunks under `id`; true when all are written.
    pub fn write(
        &mut self,
        table: &mut Table<'_, (u64, u32), &'static [u8]>,
        id: u64,
        chunks: usize,
    ) -> Result<bool, StoreError> {
        let content = self.content.as_ref();
        let all = HEAD_BYTES + content.len();
        for _ in 0..chunks {
            if self.written == all {
                break;
            }
            let end = (self.written + CHUNK_BYTES).min(all);
            if self.written == 0 {
                let first = [&self.head, &content[..end - HEAD_BYTES]].concat();
                table.insert((id, self.chunks), first.as_slice())?;
            } else {
                table.insert((id, self.chunks), &content[self.written - HEAD_BYTES..end - HEAD_BYTES])?;
            }
            self.chunks += 1;
            self.written = end;
        }
        Ok(self.written == all)
    }

    /// Begins again, after chunks were lost with a failed transaction.
    pub fn rewind(&mut self) {
        self.written = 0;
        self.chunks = 0;
    }
}

/// The content of blob `id`; `None` when it is incomplete or damaged.
pub fn read(table: &impl ReadableTable<(u64, u32), &'static [u8]>, id: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    for (expected, entry) in table.range((id, 0)..=(id, u32::MAX))?.enumerate() {
        let (key, value) = entry?;
        if key.value().1 as usize != expected {
            return Ok(None);
        }
        bytes.extend_from_slice(value.value());
    }
    let Some((head, content)) = bytes.split_at_checked(HEAD_BYTES) else { return Ok(None) };
    let (len, crc) = head.split_at(8);
    let whole = len == (content.len() as u64).to_le_bytes() && crc == crc32fast::hash(content).to_le_bytes();
    if !whole {
        return Ok(None);
    }
    bytes.drain(..HEAD_BYTES);
    Ok(Some(bytes))
}
