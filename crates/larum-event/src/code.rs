//! Dense codes of what is counted: one small number for family, op, outcome and reason together.
//!
//! Aggregates carry codes, so they need not know events; labels come back out of a code by [`Code::parts`].

use crate::event::AuthEvent;
use crate::vocabulary::{Kind, Op, Outcome, Reason};

const OUTCOMES: u16 = Outcome::ALL.len() as u16;
const REASONS: u16 = Reason::ALL.len() as u16;
const LOGIN_CODES: u16 = OUTCOMES * REASONS;
const TOKEN_OPS: u16 = Op::listed(Kind::Token).len() as u16;

/// Family, op, outcome and reason of a counted event, as one number below [`Code::COUNT`].
///
/// The layout is part of the durable format: append families, never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

/// What a [`Code`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeParts {
    /// `Login` or `Token`.
    pub kind: Kind,
    /// `Other` for logins, whose op is not counted apart.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
}

impl Code {
    /// How many codes there are.
    pub const COUNT: u16 = LOGIN_CODES + TOKEN_OPS * OUTCOMES * REASONS;

    /// The code of a login or token event; `None` for the other kinds.
    #[inline]
    pub fn of(event: &AuthEvent<'_>) -> Option<Code> {
        let ending = event.outcome()? as u16 * REASONS + event.reason() as u16;
        match event.kind() {
            Kind::Login => Some(Code(ending)),
            Kind::Token => Some(Code(LOGIN_CODES + token_op(event.op()) * LOGIN_CODES + ending)),
            _ => None,
        }
    }

    /// What the code stands for.
    ///
    /// A code from outside (a damaged store would be noticed earlier) wraps around instead of failing.
    pub fn parts(self) -> CodeParts {
        let code = self.0 % Self::COUNT;
        let (kind, op) = match code.checked_sub(LOGIN_CODES) {
            None => (Kind::Login, Op::Other),
            Some(token) => (Kind::Token, Op::listed(Kind::Token)[(token / LOGIN_CODES) as usize]),
        };
        let ending = code % LOGIN_CODES;
        CodeParts {
            kind,
            op,
            outcome: Outcome::ALL[(ending / REASONS) as usize],
            reason: Reason::ALL[(ending % REASONS) as usize],
        }
    }

    /// The latency histogram that the code's events are measured in.
    #[inline]
    pub fn histogram(self) -> Histogram {
        let code = self.0 % Self::COUNT;
        Histogram(match code.checked_sub(LOGIN_CODES) {
            None => code / REASONS,
            Some(token) => OUTCOMES + token / LOGIN_CODES,
        })
    }
}

/// A latency histogram of a key: logins by outcome, then tokens by op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Histogram(pub u16);

/// What a [`Histogram`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Logins that ended so.
    Login(Outcome),
    /// Token requests of this op.
    Token(Op),
}

impl Histogram {
    /// How many histograms a key can have.
    pub const COUNT: u16 = OUTCOMES + TOKEN_OPS;

    /// What it measures.
    pub fn measured(self) -> Measured {
        match self.0.checked_sub(OUTCOMES) {
            None => Measured::Login(Outcome::ALL[self.0 as usize]),
            Some(op) => Measured::Token(Op::listed(Kind::Token)[(op % TOKEN_OPS) as usize]),
        }
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
                Kind::Login => Measured::Login(parts.outcome),
                _ => Measured::Token(parts.op),
            };
            assert_eq!(code.histogram().measured(), expected);
        }
        for op in Op::listed(Kind::Token) {
            assert_eq!(Op::listed(Kind::Token)[token_op(*op) as usize], *op);
        }
    }
}
