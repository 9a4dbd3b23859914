//! Records that break the contract, one for each reason that a generator can cause.

use larum_event::Reject;

use crate::dice::Dice;
use crate::json::key;
use crate::mix::Place;
use crate::scribe::Scribe;

/// The reasons, taken in turn. All but `too_large`: that limit is the reader's to set, and such records would be much
/// of what is sent.
pub const FLAWS: [Reject; 19] = [
    Reject::NotJson,
    Reject::MissingTenant,
    Reject::BadTime,
    Reject::UnknownKind,
    Reject::MissingOutcome,
    Reject::NotUtf8,
    Reject::BadLatency,
    Reject::Empty,
    Reject::DuplicateKey,
    Reject::MissingTime,
    Reject::BadOutcome,
    Reject::UnknownVersion,
    Reject::NotAnObject,
    Reject::MissingKind,
    Reject::BadTenant,
    Reject::TooDeep,
    Reject::BadField,
    Reject::MissingQueue,
    Reject::MissingChangeId,
];

/// Deeper than the contract takes, which is 32.
const NESTING: usize = 40;

impl Scribe {
    /// Writes a record that is refused for the reason `flaw`, one of [`FLAWS`].
    pub fn flawed(&mut self, flaw: Reject, place: Place, dice: &mut Dice) {
        self.json.begin(false);
        match flaw {
            // Blanks, not nothing: some clients cannot tell nothing from a tombstone.
            Reject::Empty => self.json.replace(b" \n"),
            Reject::NotAnObject => self.json.replace(br#"["login","success"]"#),
            Reject::NotJson => {
                self.flawed_object(flaw, place, dice);
                // Cut anywhere, an object is left open.
                let cut = 1 + dice.below(self.json.bytes().len() as u32 - 1);
                self.json.truncate(cut as usize);
            }
            _ => self.flawed_object(flaw, place, dice),
        }
    }

    fn flawed_object(&mut self, flaw: Reject, place: Place, dice: &mut Dice) {
        let json = &mut self.json;
        if flaw == Reject::UnknownVersion {
            key!(json, "v");
            json.number(2);
        }
        if flaw == Reject::BadTime {
            key!(json, "time");
            json.text("2026-02-30T09:20:00Z");
        } else if flaw != Reject::MissingTime {
            key!(json, "time");
            self.stamps.write(place.time_ns, json, dice);
        }
        if flaw != Reject::MissingKind {
            key!(json, "kind");
            json.text(match flaw {
                Reject::UnknownKind => "signin",
                Reject::MissingQueue => "audit",
                Reject::MissingChangeId => "change",
                _ => "login",
            });
        }
        let times = match flaw {
            Reject::MissingTenant => 0,
            Reject::DuplicateKey => 2,
            _ => 1,
        };
        for _ in 0..times {
            key!(self.json, "tenant");
            if flaw == Reject::BadTenant {
                self.json.text("");
            } else {
                self.tenant_value(place.tenant);
            }
        }
        self.region(place.region);
        let json = &mut self.json;
        key!(json, "service");
        json.raw(if flaw == Reject::NotUtf8 { b"\"iam-\xFFgateway\"" } else { b"\"iam-gateway\"" });
        if flaw != Reject::MissingOutcome {
            key!(json, "outcome");
            json.text(if flaw == Reject::BadOutcome { "ok" } else { "failure" });
        }
        key!(json, "latency_ms");
        json.raw(if flaw == Reject::BadLatency { b"-1" } else { b"112.4" });
        if flaw == Reject::BadField {
            key!(json, "count");
            json.number(0);
        }
        if flaw == Reject::TooDeep {
            key!(json, "ext");
            json.raw(&[b'['; NESTING]);
            json.raw(&[b']'; NESTING]);
        }
        json.close();
    }
}
