//! The keys of the contract, where each may stand, and what its text must keep to.

use crate::reject::Reject;
use crate::words::{Table, Words};

/// Longest tenant and region, bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest `id`, bytes.
const ID_BYTES_MAX: usize = 64;

/// An object of the contract: the event or one that is nested in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The event itself.
    Event,
    /// `actor`.
    Actor,
    /// `source`.
    Source,
    /// `permission`.
    Permission,
    /// `change`.
    Change,
}

impl Scope {
    /// Level of the object; the event is level 1.
    #[inline]
    pub fn depth(self) -> usize {
        if self == Scope::Event { 1 } else { 2 }
    }
}

/// Declares the contract's keys: a dense enum and the look-up per object.
macro_rules! keys {
    ($($scope:ident { $($key:ident = $text:literal),+ $(,)? })+) => {
        /// A key of the contract, in whichever object it stands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the texts say it")]
        pub enum Key {
            $($($key),+),+,
            /// No key of the contract.
            Unknown,
            /// No key: the event ends.
            End,
        }

        impl Key {
            /// The key that a text stands for in an object, if it is one of the contract's.
            #[inline]
            pub fn of(scope: Scope, words: Words) -> Option<Key> {
                match scope {
                    $(Scope::$scope => {
                        const KEYS: &[Key] = &[$(Key::$key),+];
                        static TABLE: Table<{ KEYS.len() }> = Table::new([$($text),+]);
                        TABLE.find(words).map(|at| KEYS[at])
                    }),+
                }
            }
        }
    };
}

keys! {
    Event {
        Time = "time", Kind = "kind", Tenant = "tenant", Outcome = "outcome", Region = "region", Op = "op",
        Reason = "reason", LatencyMs = "latency_ms", Service = "service", Actor = "actor", Source = "source",
        Client = "client", V = "v", Id = "id", Count = "count", TraceId = "trace_id", SpanId = "span_id",
        ParentSpanId = "parent_span_id", Hop = "hop", Permission = "permission", Queue = "queue",
        Producer = "producer", Epoch = "epoch", Seq = "seq", EnqueuedTime = "enqueued_time", Change = "change",
    }
    Actor { ActorId = "id", ActorType = "type" }
    Source { SourceIp = "ip", SourceAsn = "asn", SourceUa = "ua" }
    Permission { PermissionSubject = "subject", PermissionRole = "role", PermissionResource = "resource" }
    Change {
        ChangeId = "id", ChangeSubject = "subject", ChangeFrom = "from", ChangeTo = "to", ChangeBy = "by",
        ChangeApprovedBy = "approved_by",
    }
}

/// How many keys there are.
pub const KEYS: usize = Key::Unknown as usize;

impl Key {
    /// The key's bit in a set of keys.
    #[inline]
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The object that the key's value has to be, if it has to be one.
    #[inline]
    pub fn opens(self) -> Option<Scope> {
        match self {
            Key::Actor => Some(Scope::Actor),
            Key::Source => Some(Scope::Source),
            Key::Permission => Some(Scope::Permission),
            Key::Change => Some(Scope::Change),
            _ => None,
        }
    }

    /// Least and most bytes of a plain text, and the reason when it has others or is none.
    #[inline]
    pub fn text_limits(self) -> (usize, usize, Reject) {
        TEXT_LIMITS[self as usize]
    }
}

const TEXT_LIMITS: [(usize, usize, Reject); KEYS + 2] = {
    let mut limits = [(0, usize::MAX, Reject::BadField); KEYS + 2];
    limits[Key::Tenant as usize] = (1, NAME_BYTES_MAX, Reject::BadTenant);
    limits[Key::Region as usize] = (1, NAME_BYTES_MAX, Reject::BadField);
    limits[Key::Id as usize] = (0, ID_BYTES_MAX, Reject::BadField);
    limits
};
