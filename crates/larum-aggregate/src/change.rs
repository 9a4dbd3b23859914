//! Changes of the platform, kept one by one: the newest so many of a source, whatever order they come in.

use serde::{Deserialize, Serialize};

use crate::delta::{PartitionId, SourceId};

/// Most changes of a source that are kept; older ones go.
pub const CHANGES_MAX: usize = 1024;
/// Most of a text that is kept, bytes.
const TEXT_BYTES_MAX: usize = 128;

/// Where a change stands in time: sorted by this, the last ones are the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangePlace {
    /// When it happened, or when its record was appended if that was before, Unix ns.
    pub at_ns: i64,
    /// Where its record was read.
    pub partition: PartitionId,
    /// Its record's offset there.
    pub offset: i64,
    /// Its place among the changes of its record.
    pub nth: u32,
}

/// One change. Who made and who approved it is not kept: account names stay out of everything that leaves Larum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where it stands.
    pub place: ChangePlace,
    /// The source that it comes from.
    pub source: SourceId,
    /// The tick of its record.
    pub tick: u32,
    /// When it happened, as it says itself, Unix ns.
    pub time_ns: i64,
    /// What was done, as a code; opaque here.
    pub code: u16,
    /// The service that said so, as it is shown.
    pub service: String,
    /// Where, as it is shown.
    pub region: String,
    /// Its own id.
    pub id: String,
    /// What was changed.
    pub subject: Option<String>,
    /// Its state before.
    pub from: Option<String>,
    /// Its state after.
    pub to: Option<String>,
    /// W3C trace id.
    pub trace_id: Option<[u8; 16]>,
    /// W3C span id.
    pub span_id: Option<[u8; 8]>,
}

impl Change {
    /// A text from outside as it is kept: without control characters, cut to 128 bytes.
    pub fn text(raw: &str) -> String {
        let mut end = raw.len().min(TEXT_BYTES_MAX);
        while !raw.is_char_boundary(end) {
            end -= 1;
        }
        raw[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// Keeps the newest [`CHANGES_MAX`], sorted.
pub fn keep_newest(changes: &mut Vec<Change>) {
    changes.sort_by_key(|change| change.place);
    changes.drain(..changes.len().saturating_sub(CHANGES_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at_ns: i64, offset: i64) -> Change {
        Change {
            place: ChangePlace { at_ns, partition: PartitionId(0), offset, nth: 0 },
            source: SourceId(0),
            tick: 0,
            time_ns: at_ns,
            code: 0,
            service: String::new(),
            region: String::new(),
            id: String::new(),
            subject: None,
            from: None,
            to: None,
            trace_id: None,
            span_id: None,
        }
    }

    #[test]
    fn the_newest_are_kept_in_whatever_parts_they_come() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut all: Vec<Change> = (0..5_000).map(|offset| change(rng.i64(..1_000), offset)).collect();
        let mut kept = Vec::new();
        for part in all.chunks(700) {
            kept.extend_from_slice(part);
            keep_newest(&mut kept);
        }
        keep_newest(&mut all);
        assert_eq!(kept, all);
        assert_eq!(kept.len(), CHANGES_MAX);
    }

    #[test]
    fn texts_are_cut_between_characters_and_free_of_control_characters() {
        assert_eq!(Change::text("1.8.2\n\u{1b}[31m"), "1.8.2  [31m");
        assert_eq!(Change::text(&"é".repeat(100)), "é".repeat(64));
        assert_eq!(Change::text(&format!("x{}", "é".repeat(100))).len(), 127);
    }
}
