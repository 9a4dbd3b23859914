//! Blobs in chunks: redb rounds a value up to a power of two of its pages, so large ones are cut to sizes that fit.

use redb::{ReadableTable, Table, TableDefinition};

use crate::error::StoreError;

/// Chunks of a blob by (blob, number).
pub type Chunks = TableDefinition<'static, (u64, u32), &'static [u8]>;

/// Bytes of a chunk: a power of two of pages, less what redb adds.
const CHUNK_BYTES: usize = 256 * 1024 - 128;
/// Length and CRC-32 in front of the first chunk.
const HEAD_BYTES: usize = 12;

/// A blob on its way into the store: head and content, cut as it goes.
pub struct Writer {
    bytes: Vec<u8>,
    written: usize,
    chunks: u32,
}

impl Writer {
    /// Puts the head in front of `content`.
    pub fn new(content: &[u8]) -> Writer {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len());
        bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
        bytes.extend_from_slice(content);
        Writer { bytes, written: 0, chunks: 0 }
    }

    /// Writes up to `chunks` more chunks under `id`; true when all are written.
    pub fn write(
        &mut self,
        table: &mut Table<'_, (u64, u32), &'static [u8]>,
        id: u64,
        chunks: usize,
    ) -> Result<bool, StoreError> {
        for chunk in self.bytes[self.written..].chunks(CHUNK_BYTES).take(chunks) {
            table.insert((id, self.chunks), chunk)?;
            self.chunks += 1;
            self.written += chunk.len();
        }
        Ok(self.written == self.bytes.len())
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
