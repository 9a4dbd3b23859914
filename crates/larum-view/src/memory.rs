//! The memory model: what a key takes, by how much happens there.

/// Bytes that a (tenant, region) key takes in the view, at so many events an hour: logins and tokens, after two hours. A
/// test compares them with the allocator's count.
///
/// Between the rows it grows about in proportion while every event finds a cell of its own, and hardly beyond some
/// thousand events an hour, where cells are met again: what is kept are distinct (pane, code, bucket), not events.
pub const KEY_BYTES_BY_ACTIVITY: [(u32, u64); 4] = [(1, 500), (60, 1_130), (1_000, 4_200), (20_000, 27_000)];

/// What a key takes besides, in the look-ups of admission and of one worker, bytes.
pub const KEY_LOOKUP_BYTES: u64 = 200;

/// What a key is planned with, bytes: about 600 events an hour, which ten thousand tenants by Zipf in twelve regions have
/// on average at 20,000 events/s, with what allocator and merging take beside.
pub const KEY_BYTES_PLANNED: u64 = 4096;

/// What a name takes, with its entries in the look-ups, bytes.
pub const NAME_BYTES: u64 = 512;
