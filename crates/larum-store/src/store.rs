//! Appending, recovering, snapshots, and going on after the disk refused.

use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::blob::{self, Chunks, Writer};
use crate::error::StoreError;

/// Version of what Larum keeps in the file; redb has its own.
const FORMAT: u8 = 1;
const FILE: &str = "larum.redb";

const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const LOG: Chunks = TableDefinition::new("log");
const SNAPSHOTS: Chunks = TableDefinition::new("snapshots");

/// When snapshots are made, and how fast they are written.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// A snapshot is due once the log behind it is larger, bytes.
    pub log_bytes_max: u64,
    /// Chunks of a snapshot written along with each commit, so that none takes long.
    pub snapshot_chunks_per_commit: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        StoreLimits { log_bytes_max: 64 << 20, snapshot_chunks_per_commit: 16 }
    }
}

/// What a store held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// What was set at creation.
    pub identity: Option<Vec<u8>>,
    /// The state after the commit before the first of `commits`.
    pub snapshot: Option<Vec<u8>>,
    /// The commits since, in order.
    pub commits: Vec<Vec<u8>>,
    /// The last commit was damaged, and is cut off.
    pub torn: bool,
}

/// A snapshot that is being written along with commits.
struct OpenSnapshot {
    /// The last commit that it contains; also its id.
    seq: u64,
    writer: Writer<Vec<u8>>,
}

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The durable log. One writer, one fsync per append.
pub struct Store {
    opener: Opener,
    place: String,
    limits: StoreLimits,
    /// `None` after the disk refused, until it is opened again.
    db: Option<Database>,
    last_seq: u64,
    snapshot_seq: Option<u64>,
    log_bytes: u64,
    open_snapshot: Option<OpenSnapshot>,
}

/// The settings under which every database of ours is opened: a file that was altered is refused, not trusted.
pub fn configure(builder: &mut Builder) -> &mut Builder {
    builder.set_cache_size(64 << 20).set_check_integrity_on_open(true)
}

impl Store {
    /// Opens or creates the store in a directory.
    ///
    /// # Errors
    /// Locked by another process, of an unknown format, corrupt, or the disk refuses.
    pub fn open(dir: &Path, limits: StoreLimits) -> Result<(Store, Recovered), StoreError> {
        let io = |e: std::io::Error| StoreError::Io(format!("{}: {e}", dir.display()));
        std::fs::create_dir_all(dir).map_err(io)?;
        let file = dir.join(FILE);
        let opener = Box::new(move || configure(&mut Builder::new()).create(&file));
        let opened = Self::open_with(opener, &dir.display().to_string(), limits)?;
        // The file's name must survive a power loss as well as its content.
        std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
        Ok(opened)
    }

    /// The same over any database, for tests with a model disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(opener: Opener, place: &str, limits: StoreLimits) -> Result<(Store, Recovered), StoreError> {
        let mut store = Store {
            opener,
            place: place.to_string(),
            limits,
            db: None,
            last_seq: 0,
            snapshot_seq: None,
            log_bytes: 0,
            open_snapshot: None,
        };
        let recovered = store.recover()?;
        Ok((store, recovered))
    }

    /// Puts the store of a directory aside, so that the next open begins a new epoch; gives where it went.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn set_aside(dir: &Path) -> Result<Option<PathBuf>, StoreError> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        // Somebody else's store is not put aside; a damaged one is.
        if let Err(error @ DatabaseError::DatabaseAlreadyOpen) = configure(&mut Builder::new()).open(&file) {
            return match StoreError::from(error) {
                StoreError::Locked(_) => Err(StoreError::Locked(dir.display().to_string())),
                other => Err(other),
            };
        }
        let mut numbers = 1..;
        let free = numbers.find_map(|n| Some(dir.join(format!("{FILE}.old-{n}"))).filter(|path| !path.exists()));
        let aside = free.unwrap_or_else(|| dir.join(format!("{FILE}.old")));
        std::fs::rename(&file, &aside).map_err(|e| StoreError::Io(format!("{}: {e}", file.display())))?;
        Ok(Some(aside))
    }

    /// Size of the store of a directory on disk, bytes.
    pub fn size_bytes(dir: &Path) -> u64 {
        std::fs::metadata(dir.join(FILE)).map_or(0, |m| m.len())
    }

    /// Sequence number of the last durable commit; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// True when a snapshot is due; hand one to [`Store::begin_snapshot`].
    pub fn wants_snapshot(&self) -> bool {
        self.open_snapshot.is_none() && self.log_bytes > self.limits.log_bytes_max
    }

    /// Begins to write the state after the last commit; it goes out along with the next commits.
    pub fn begin_snapshot(&mut self, state: Vec<u8>) {
        self.open_snapshot = Some(OpenSnapshot { seq: self.last_seq, writer: Writer::new(state) });
    }

    /// Makes `commit` durable, with one fsync. `identity` is kept from the first commit on.
    ///
    /// After an error call again with the same bytes: if they became durable after all, that is noticed.
    ///
    /// # Errors
    /// The disk refuses (temporary), or what is on it was damaged meanwhile.
    pub fn append(&mut self, commit: &[u8], identity: &[u8]) -> Result<u64, StoreError> {
        let seq = self.last_seq + 1;
        if self.db.is_none() && self.reopen()? == seq {
            // The commit that seemed to fail had become durable.
            if self.read_commit(seq)?.as_deref() != Some(commit) {
                return Err(StoreError::Corrupt(format!("commit {seq} is not what was written")));
            }
            self.last_seq = seq;
            return Ok(seq);
        }
        match self.try_append(seq, commit, identity) {
            Ok(snapshot_done) => {
                self.last_seq = seq;
                self.log_bytes += commit.len() as u64;
                if snapshot_done {
                    self.finish_snapshot();
                }
                Ok(seq)
            }
            Err(error) => {
                self.db = None;
                if let Some(open) = &mut self.open_snapshot {
                    open.writer.rewind();
                }
                Err(error)
            }
        }
    }

    fn try_append(&mut self, seq: u64, commit: &[u8], identity: &[u8]) -> Result<bool, StoreError> {
        let Some(db) = &self.db else { return Err(StoreError::Io("not open".into())) };
        let txn = db.begin_write()?;
        let mut snapshot_done = false;
        {
            let mut log = txn.open_table(LOG)?;
            Writer::new(commit).write(&mut log, seq, usize::MAX)?;
            let mut meta = txn.open_table(META)?;
            if seq == 1 {
                meta.insert("format", [FORMAT].as_slice())?;
                meta.insert("identity", identity)?;
            }
            if let Some(open) = &mut self.open_snapshot {
                let mut snapshots = txn.open_table(SNAPSHOTS)?;
                snapshot_done = open.writer.write(&mut snapshots, open.seq, self.limits.snapshot_chunks_per_commit)?;
                if snapshot_done {
                    meta.insert("snapshot", open.seq.to_le_bytes().as_slice())?;
                    log.retain_in(..=(open.seq, u32::MAX), |_, _| false)?;
                    snapshots.retain(|key, _| key.0 == open.seq)?;
                }
            }
        }
        txn.commit()?;
        Ok(snapshot_done)
    }

    fn finish_snapshot(&mut self) {
        if let Some(done) = self.open_snapshot.take() {
            self.snapshot_seq = Some(done.seq);
            // What was appended while it was written is still in the log; counted anew from here, roughly.
            self.log_bytes = 0;
        }
    }

    /// Opens the database again; gives the last commit that is in it.
    fn reopen(&mut self) -> Result<u64, StoreError> {
        let db = (self.opener)().map_err(|e| self.explain(e.into()))?;
        let txn = db.begin_read()?;
        let last = match txn.open_table(LOG) {
            Ok(log) => log.last()?.map(|(key, _)| key.value().0),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(e) => return Err(e.into()),
        };
        drop(txn);
        self.db = Some(db);
        Ok(last.unwrap_or_else(|| self.snapshot_seq.unwrap_or(0)))
    }

    fn read_commit(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(db) = &self.db else { return Ok(None) };
        blob::read(&db.begin_read()?.open_table(LOG)?, seq)
    }

    fn explain(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Locked(_) => StoreError::Locked(self.place.clone()),
            other => other,
        }
    }

    /// Reads everything back: the snapshot, then every commit since. A damaged last commit is cut off.
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.reopen()?;
        let Some(db) = &self.db else { return Err(StoreError::Io("not open".into())) };
        let mut recovered = Recovered::default();
        let txn = db.begin_read()?;
        let meta = match txn.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(recovered),
            Err(e) => return Err(e.into()),
        };
        match meta.get("format")?.map(|f| f.value().to_vec()).as_deref() {
            Some([FORMAT]) => {}
            Some([found, ..]) => return Err(StoreError::UnknownFormat { found: *found, known: FORMAT }),
            _ => return Err(StoreError::Corrupt("its format is missing".into())),
        }
        recovered.identity = meta.get("identity")?.map(|i| i.value().to_vec());
        if let Some(seq) = meta.get("snapshot")?.and_then(|s| s.value().try_into().ok()).map(u64::from_le_bytes) {
            let snapshot = blob::read(&txn.open_table(SNAPSHOTS)?, seq)?;
            recovered.snapshot =
                Some(snapshot.ok_or_else(|| StoreError::Corrupt(format!("snapshot {seq} does not match its CRC")))?);
            self.snapshot_seq = Some(seq);
        }
        let log = txn.open_table(LOG)?;
        let first = self.snapshot_seq.unwrap_or(0) + 1;
        let last = log.last()?.map_or(first - 1, |(key, _)| key.value().0);
        self.last_seq = first - 1;
        for seq in first..=last {
            match blob::read(&log, seq)? {
                Some(commit) => {
                    self.log_bytes += commit.len() as u64;
                    self.last_seq = seq;
                    recovered.commits.push(commit);
                }
                None if seq == last => recovered.torn = true,
                None => {
                    return Err(StoreError::Corrupt(format!(
                        "commit {seq} does not match its CRC, and valid commits up to {last} follow it"
                    )));
                }
            }
        }
        drop((log, meta, txn));
        if recovered.torn {
            self.cut(last)?;
        }
        Ok(recovered)
    }

    fn cut(&self, seq: u64) -> Result<(), StoreError> {
        let Some(db) = &self.db else { return Ok(()) };
        let txn = db.begin_write()?;
        txn.open_table(LOG)?.retain_in((seq, 0).., |_, _| false)?;
        txn.commit()?;
        Ok(())
    }
}
