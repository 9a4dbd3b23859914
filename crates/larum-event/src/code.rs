//! Dense codes of what is counted: one small number for family, op, outcome and reason together.
//!
//! Aggregates carry codes, so they need not know events; labels come back out of a code by [`Code::parts`].

use crate::event::AuthEvent;
use crate::vocabulary::{Hop, Kind, Op, Outcome, Reason};

const OUTCOMES: u16 = Outcome::ALL.len() as u16;
const REASONS: u16 = Reason::ALL.len() as u16;
const LOGIN_CODES: u16 = OUTCOMES * REASONS;
const TOKEN_OPS: u16 = Op::listed(Kind::Token).len() as u16;
/// What permissions are counted by, besides their outcome: the ops, escalations apart by hop (not said, then the hops).
const PERMISSION_PLACES: u16 = ESCALATED + 1 + Hop::ALL.len() as u16;
/// The first place of escalations, which are listed last.
const ESCALATED: u16 = Op::listed(Kind::Permission).len() as u16 - 1;
const CHANGE_OPS: u16 = Op::listed(Kind::Change).len() as u16;

/// Where each family's codes begin.
const TOKENS: u16 = LOGIN_CODES;
const PERMISSIONS: u16 = TOKENS + TOKEN_OPS * LOGIN_CODES;
const CHANGES: u16 = PERMISSIONS + PERMISSION_PLACES * OUTCOMES;
/// Delivered audit records, one code.
const DELIVERED: u16 = CHANGES + CHANGE_OPS;

/// Family, op, outcome and reason of a counted event, as one number below [`Code::COUNT`].
///
/// The layout is part of the durable format: append families, never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

/// What a [`Code`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeParts {
    /// What sort of thing happened.
    pub kind: Kind,
    /// `Other` for logins, whose op is not counted apart.
    pub op: Op,
    /// How it ended; `Success` for changes and audit records, which do not say.
    pub outcome: Outcome,
    /// Why; `None` but for logins and tokens, whose reasons alone are counted apart.
    pub reason: Reason,
    /// Place in an escalation chain, where said.
    pub hop: Option<Hop>,
}

impl Code {
    /// How many codes there are.
    pub const COUNT: u16 = DELIVERED + 1;

    /// The code of an event; `None` for a producer's word that it put something into an audit queue.
    #[inline]
    pub fn of(event: &AuthEvent<'_>) -> Option<Code> {
        let outcome = event.outcome().map(|outcome| outcome as u16);
        match event.kind() {
            Kind::Login => Some(Code(outcome? * REASONS + event.reason() as u16)),
            Kind::Token => {
                Some(Code(TOKENS + token_op(event.op()) * LOGIN_CODES + outcome? * REASONS + event.reason() as u16))
            }
            Kind::Permission => {
                let place = match event.op() {
                    Op::Escalate => ESCALATED + event.hop().map_or(0, |hop| 1 + hop as u16),
                    op => index_of(Kind::Permission, op),
                };
                Some(Code(PERMISSIONS + place * OUTCOMES + outcome?))
            }
            Kind::Change => Some(Code(CHANGES + index_of(Kind::Change, event.op()))),
            Kind::Audit => (event.op() == Op::Deliver).then_some(Code(DELIVERED)),
        }
    }

    /// What the code stands for.
    ///
    /// A code from outside (a damaged store would be noticed earlier) wraps around instead of failing.
    pub fn parts(self) -> CodeParts {
        let code = self.0 % Self::COUNT;
        let none =
            CodeParts { kind: Kind::Login, op: Op::Other, outcome: Outcome::Success, reason: Reason::None, hop: None };
        let ended = |parts: CodeParts, ending: u16| {
            let (outcome, reason) =
                (Outcome::ALL[(ending / REASONS) as usize], Reason::ALL[(ending % REASONS) as usize]);
            CodeParts { outcome, reason, ..parts }
        };
        match code {
            0..TOKENS => ended(none, code),
            TOKENS..PERMISSIONS => {
                let op = Op::listed(Kind::Token)[((code - TOKENS) / LOGIN_CODES) as usize];
                ended(CodeParts { kind: Kind::Token, op, ..none }, (code - TOKENS) % LOGIN_CODES)
            }
            PERMISSIONS..CHANGES => {
                let place = (code - PERMISSIONS) / OUTCOMES;
                let op = Op::listed(Kind::Permission)[place.min(ESCALATED) as usize];
                let hop = place.checked_sub(ESCALATED + 1).map(|hop| Hop::ALL[hop as usize]);
                let outcome = Outcome::ALL[((code - PERMISSIONS) % OUTCOMES) as usize];
                CodeParts { kind: Kind::Permission, op, outcome, hop, ..none }
            }
            CHANGES..DELIVERED => {
                CodeParts { kind: Kind::Change, op: Op::listed(Kind::Change)[(code - CHANGES) as usize], ..none }
            }
            _ => CodeParts { kind: Kind::Audit, op: Op::Deliver, ..none },
        }
    }

    /// Whether the code's events are measured; changes are not.
    #[inline]
    pub fn is_measured(self) -> bool {
        !(CHANGES..DELIVERED).contains(&(self.0 % Self::COUNT))
    }

    /// The latency histogram that the code's events are measured in; changes are in none.
    #[inline]
    pub fn histogram(self) -> Option<Histogram> {
        let code = self.0 % Self::COUNT;
        match code {
            0..TOKENS => Some(Histogram(code / REASONS)),
            TOKENS..PERMISSIONS => Some(Histogram(OUTCOMES + (code - TOKENS) / LOGIN_CODES)),
            PERMISSIONS..CHANGES => Some(Histogram(OUTCOMES + TOKEN_OPS + code - PERMISSIONS)),
            CHANGES..DELIVERED => None,
            _ => Some(Histogram(DELIVERY)),
        }
    }
}

/// The index of an op within its kind.
#[inline]
fn index_of(kind: Kind, op: Op) -> u16 {
    Op::listed(kind).iter().position(|listed| *listed == op).unwrap_or(0) as u16
}

/// The delivery delay of audit records, after the histograms of the other families.
const DELIVERY: u16 = OUTCOMES + TOKEN_OPS + PERMISSION_PLACES * OUTCOMES;

/// A latency histogram of a key: logins by outcome, tokens by op, permissions by op, hop and outcome, audit records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Histogram(pub u16);

/// What a [`Histogram`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Logins that ended so.
    Login(Outcome),
    /// Token requests of this op.
    Token(Op),
    /// Permissions of this op that ended so, in this place of an escalation chain.
    Permission(Op, Outcome, Option<Hop>),
    /// Audit records, from being put into their queue to coming out of it.
    Delivery,
}

impl Histogram {
    /// How many histograms a key can have.
    pub const COUNT: u16 = DELIVERY + 1;

    /// What it measures.
    pub fn measured(self) -> Measured {
        let id = self.0 % Self::COUNT;
        if id < OUTCOMES {
            return Measured::Login(Outcome::ALL[id as usize]);
        }
        if id < OUTCOMES + TOKEN_OPS {
            return Measured::Token(Op::listed(Kind::Token)[(id - OUTCOMES) as usize]);
        }
        if id == DELIVERY {
            return Measured::Delivery;
        }
        let CodeParts { op, outcome, hop, .. } = Code(id - OUTCOMES - TOKEN_OPS + PERMISSIONS).parts();
        Measured::Permission(op, outcome, hop)
    }
}

#[inline]
fn token_op(op: Op) -> u16 {
    match op {
        Op::Issue => 1,
        Op::Refresh => 2,
        Op::Exchange => 3,
        Op::Revoke => 4,
        Op::Introspect => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_their_parts_are_one_to_one() {
        let mut seen = std::collections::HashSet::new();
        for code in (0..Code::COUNT).map(Code) {
            let parts = code.parts();
            assert!(seen.insert(parts), "{parts:?}");
            let expected = match parts.kind {
                Kind::Login => Some(Measured::Login(parts.outcome)),
                Kind::Token => Some(Measured::Token(parts.op)),
                Kind::Permission => Some(Measured::Permission(parts.op, parts.outcome, parts.hop)),
                Kind::Audit => Some(Measured::Delivery),
                Kind::Change => None,
            };
            assert_eq!(code.histogram().map(Histogram::measured), expected);
        }
        for op in Op::listed(Kind::Token) {
            assert_eq!(Op::listed(Kind::Token)[token_op(*op) as usize], *op);
        }
    }
}
