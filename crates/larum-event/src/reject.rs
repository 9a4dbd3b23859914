//! Why a record is refused. The order of the list is the order in which reasons apply.

/// Declares the reasons with their label texts, in their order.
macro_rules! rejects {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// Why a record is refused: the first that applies, in this order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reject { $($(#[$doc])* $variant),+ }

        impl Reject {
            /// Every reason, in order; the position is the reason's stable index.
            pub const ALL: &'static [Reject] = &[$(Reject::$variant),+];

            /// The text that stands for it in labels and dead-letter headers.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reject::$variant => $text),+ }
            }
        }
    };
}

rejects! {
    /// Over the size limit (64 KiB by default).
    TooLarge = "too_large",
    /// No bytes, or blanks only.
    Empty = "empty",
    /// The bytes are not UTF-8.
    NotUtf8 = "not_utf8",
    /// The text is not JSON (RFC 8259), or holds half a surrogate pair.
    NotJson = "not_json",
    /// JSON, but not an object.
    NotAnObject = "not_an_object",
    /// Nested deeper than 32.
    TooDeep = "too_deep",
    /// A key of the contract twice in its object.
    DuplicateKey = "duplicate_key",
    /// `v` is not 1.
    UnknownVersion = "unknown_version",
    /// No `time`.
    MissingTime = "missing_time",
    /// `time` cannot be read, or is not from 2000 to 2100.
    BadTime = "bad_time",
    /// No `kind`.
    MissingKind = "missing_kind",
    /// `kind` is none of the five.
    UnknownKind = "unknown_kind",
    /// No `tenant` where one is required.
    MissingTenant = "missing_tenant",
    /// `tenant` is not a string, empty, or over 256 bytes.
    BadTenant = "bad_tenant",
    /// No `outcome` where one is required.
    MissingOutcome = "missing_outcome",
    /// `outcome` is none of the four.
    BadOutcome = "bad_outcome",
    /// `latency_ms` is not a number from 0 to 86,400,000.
    BadLatency = "bad_latency",
    /// An audit event without `queue`.
    MissingQueue = "missing_queue",
    /// A change event without `change.id`.
    MissingChangeId = "missing_change_id",
    /// Any other key of the contract with the wrong type or range.
    BadField = "bad_field",
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Reject {}
