//! What can go wrong with the store, and what to do about it.

/// Why the store cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("the state directory {0} is in use by another process; give each Larum its own --state")]
    Locked(String),
    /// Written by another version.
    #[error(
        "the store has format {found}, this Larum reads up to {known}; use the version that wrote it, or start anew with --reset-state"
    )]
    UnknownFormat {
        /// The format found.
        found: u8,
        /// The latest format known.
        known: u8,
    },
    /// It cannot be trusted.
    #[error(
        "the store is damaged: {0}; nothing was changed. Restore it from a copy, or start a new epoch with --reset-state (totals and start times begin anew)"
    )]
    Corrupt(String),
    /// The disk refused; worth trying again.
    #[error("the disk refused: {0}")]
    Io(String),
}

impl StoreError {
    /// True when the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, StoreError::Io(_))
    }
}

/// redb has an error type per call; this is what all of them mean here.
macro_rules! from_redb {
    ($($kind:ident),+) => {
        $(impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> Self {
                StoreError::from(redb::Error::from(error))
            }
        })+
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::Locked(String::new()),
            redb::Error::Corrupted(what) => StoreError::Corrupt(what),
            redb::Error::UpgradeRequired(found) => StoreError::UnknownFormat { found, known: 0 },
            redb::Error::TableTypeMismatch { table, .. } => StoreError::Corrupt(format!("table {table}")),
            redb::Error::TableDoesNotExist(table) => StoreError::Corrupt(format!("table {table} is missing")),
            other => StoreError::Io(other.to_string()),
        }
    }
}
