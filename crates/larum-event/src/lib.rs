//! The canonical authentication event and its decoding from bytes.
//!
//! One Kafka record holds one event (or several, see [`Records`]). [`Decoder`] turns its bytes into borrowed
//! [`AuthEvent`]s or into the first [`Reject`] that applies. Nothing here knows Kafka, windows or a clock.
//!
//! Reading order: `vocabulary` and `event` (what an event is), `reject` (why a record is refused), `json` (strict JSON
//! scanning), `number`, `time`, `hex` and `words` (exact conversions), `keys` (what may stand where), `layout` (foresight),
//! `reader` and `decode` (the strict single-pass reader), `code` (the dense number of what is counted).

mod code;
mod decode;
mod event;
mod hex;
mod json;
mod keys;
mod layout;
mod number;
mod reader;
mod reject;
mod time;
mod vocabulary;
mod words;

pub use code::{Code, CodeParts, Histogram, Measured};
pub use decode::{Decoder, Limits, Records};
pub use event::{AuditFields, AuthEvent, ChangeFields, PermissionFields};
pub use hex::traceparent;
pub use reject::Reject;
pub use time::{TIME_MAX_NS, TIME_MIN_NS, parse_rfc3339_ns};
pub use vocabulary::{ActorType, Hop, Kind, Op, Outcome, Reason};
