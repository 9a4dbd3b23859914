//! What rules can look at: a few sums of codes, named once.

use std::sync::LazyLock;

use larum_aggregate::histogram::{Bucket, bucket_of};
use larum_event::{Code, CodeParts, Hop, Kind, Op, Outcome, Reason};

/// Declares the measures in order, each with its name and what it is.
macro_rules! measures {
    ($($id:ident = $name:literal $help:literal,)+) => {
        /// Events of one sort, added up.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Measure {
            $(#[doc = $help] $id,)+
        }

        impl Measure {
            /// All of them, in order.
            pub const ALL: &[Measure] = &[$(Measure::$id),+];

            /// Its name in the catalogue and in labels.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Measure::$id => $name,)+
                }
            }
        }
    };
}

measures! {
    Login = "login" "Logins.",
    LoginSuccess = "login_success" "Logins that were done.",
    LoginFailure = "login_failure" "Logins that went wrong, whoever's fault it was.",
    LoginDenied = "login_denied" "Logins that a rule refused.",
    LoginBad = "login_bad" "Logins that the platform failed: upstream errors and timeouts.",
    Token = "token" "Token requests.",
    TokenDenied = "token_denied" "Token requests that a rule refused.",
    TokenBad = "token_bad" "Token requests that the platform failed: upstream errors and timeouts.",
    Assign = "assign" "Permissions assigned, or not.",
    AssignFailure = "assign_failure" "Permissions that could not be assigned.",
    EscalateGateway = "escalate_gateway" "Escalations at the gateway.",
    EscalateEvaluator = "escalate_evaluator" "Escalations at the evaluator.",
    EscalateEnforcer = "escalate_enforcer" "Escalations at the enforcer.",
    RefusedGateway = "refused_gateway" "Escalations that failed or were denied at the gateway.",
    RefusedEvaluator = "refused_evaluator" "Escalations that failed or were denied at the evaluator.",
    RefusedEnforcer = "refused_enforcer" "Escalations that failed or were denied at the enforcer.",
    LoginSlow = "login_slow" "Logins that took longer than 2 s.",
    TokenSlow = "token_slow" "Token requests that took longer than 500 ms.",
    SlowGateway = "slow_gateway" "Escalations that took longer than 1 s at the gateway.",
    SlowEvaluator = "slow_evaluator" "Escalations that took longer than 1 s at the evaluator.",
    SlowEnforcer = "slow_enforcer" "Escalations that took longer than 1 s at the enforcer.",
}

/// How many measures there are.
pub const MEASURES: usize = Measure::ALL.len();
/// The first of them are those of logins and tokens, which are kept of every tenant.
pub const TENANT_MEASURES: usize = Measure::Assign as usize;
/// Those from here on need latencies, which windows do not keep: they are known of events as they come.
pub const FIRST_SLOW: usize = Measure::LoginSlow as usize;

/// Events that took longer are slow, ns: bounds of the layout, so that each bucket is slow or not as a whole.
const LOGIN_SLOW_NS: u64 = 2_000_000_000;
const TOKEN_SLOW_NS: u64 = 500_000_000;
const ESCALATE_SLOW_NS: u64 = 1_000_000_000;

impl Measure {
    /// The measure of that name.
    pub fn named(name: &str) -> Option<Measure> {
        Measure::ALL.iter().copied().find(|measure| measure.as_str() == name)
    }

    /// Whether it is kept of every tenant, and not of regions only.
    pub fn is_of_tenants(self) -> bool {
        (self as usize) < TENANT_MEASURES
    }

    /// Whether sliding windows know it.
    pub fn is_of_windows(self) -> bool {
        (self as usize) < FIRST_SLOW
    }
}

/// What the events of a code count in: a bit for each measure, and those beyond a bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) always: u32,
    slow: u32,
    slow_from: Bucket,
}

impl Counts {
    /// The measures of an event with this bucket, a bit for each.
    #[inline]
    pub(crate) fn of(self, bucket: Option<Bucket>) -> u32 {
        self.always | if bucket.is_some_and(|bucket| bucket >= self.slow_from) { self.slow } else { 0 }
    }
}

fn bits(measures: &[Measure]) -> u32 {
    measures.iter().fold(0, |bits, measure| bits | 1 << *measure as u32)
}

fn counts(code: Code) -> Counts {
    let CodeParts { kind, op, outcome, reason, hop } = code.parts();
    let is_bad = matches!(reason, Reason::UpstreamError | Reason::Timeout);
    let mut always = Vec::new();
    let (mut slow, mut slow_ns) = (Vec::new(), 0);
    match kind {
        Kind::Login => {
            always.push(Measure::Login);
            match outcome {
                Outcome::Success => always.push(Measure::LoginSuccess),
                Outcome::Failure => always.push(Measure::LoginFailure),
                Outcome::Denied => always.push(Measure::LoginDenied),
                Outcome::Challenge => {}
            }
            always.extend(is_bad.then_some(Measure::LoginBad));
            (slow, slow_ns) = (vec![Measure::LoginSlow], LOGIN_SLOW_NS);
        }
        Kind::Token => {
            always.push(Measure::Token);
            always.extend((outcome == Outcome::Denied).then_some(Measure::TokenDenied));
            always.extend(is_bad.then_some(Measure::TokenBad));
            (slow, slow_ns) = (vec![Measure::TokenSlow], TOKEN_SLOW_NS);
        }
        Kind::Permission if op == Op::Assign => {
            always.push(Measure::Assign);
            always.extend((outcome == Outcome::Failure).then_some(Measure::AssignFailure));
        }
        Kind::Permission if op == Op::Escalate => {
            let refused = matches!(outcome, Outcome::Failure | Outcome::Denied);
            let at = match hop {
                Some(Hop::Gateway) => Some((Measure::EscalateGateway, Measure::RefusedGateway, Measure::SlowGateway)),
                Some(Hop::Evaluator) => {
                    Some((Measure::EscalateEvaluator, Measure::RefusedEvaluator, Measure::SlowEvaluator))
                }
                Some(Hop::Enforcer) => {
                    Some((Measure::EscalateEnforcer, Measure::RefusedEnforcer, Measure::SlowEnforcer))
                }
                None => None,
            };
            if let Some((all, refusals, slow_ones)) = at {
                always.push(all);
                always.extend(refused.then_some(refusals));
                (slow, slow_ns) = (vec![slow_ones], ESCALATE_SLOW_NS);
            }
        }
        Kind::Permission | Kind::Audit | Kind::Change => {}
    }
    Counts { always: bits(&always), slow: bits(&slow), slow_from: bucket_of(slow_ns) + 1 }
}

/// By code.
pub(crate) static COUNTS: LazyLock<Vec<Counts>> =
    LazyLock::new(|| (0..Code::COUNT).map(|code| counts(Code(code))).collect());

/// By code, the op of a token request, whose latencies are kept by region.
pub(crate) static TOKEN_OPS: LazyLock<Vec<Option<Op>>> = LazyLock::new(|| {
    let op = |code: u16| Some(Code(code).parts()).filter(|parts| parts.kind == Kind::Token).map(|parts| parts.op);
    (0..Code::COUNT).map(op).collect()
});

#[cfg(test)]
mod tests {
    use super::*;
    use larum_aggregate::histogram::upper_ns;

    #[test]
    fn bounds_of_slowness_are_bounds_of_the_layout() {
        for ns in [LOGIN_SLOW_NS, TOKEN_SLOW_NS, ESCALATE_SLOW_NS] {
            assert_eq!(upper_ns(bucket_of(ns)), ns);
        }
    }

    #[test]
    fn a_code_counts_in_what_it_is() {
        for code in (0..Code::COUNT).map(Code) {
            let (parts, counted) = (code.parts(), COUNTS[usize::from(code.0)]);
            let has = |measure: Measure| counted.always & 1 << measure as u32 != 0;
            assert_eq!(has(Measure::Login), parts.kind == Kind::Login);
            let ended = [
                (Measure::LoginSuccess, Outcome::Success),
                (Measure::LoginFailure, Outcome::Failure),
                (Measure::LoginDenied, Outcome::Denied),
            ];
            for (measure, outcome) in ended {
                assert_eq!(has(measure), parts.kind == Kind::Login && parts.outcome == outcome);
            }
            assert_eq!(
                has(Measure::TokenBad),
                parts.kind == Kind::Token && matches!(parts.reason, Reason::Timeout | Reason::UpstreamError)
            );
            let (quick, slow) = (counted.of(Some(bucket_of(1_000_000))), counted.of(Some(bucket_of(3_000_000_000))));
            assert_eq!((quick, slow != quick), (counted.always, counted.slow != 0), "{parts:?}");
            assert_eq!(counted.of(None), counted.always);
        }
    }

    #[test]
    fn names_are_found_again() {
        for measure in Measure::ALL {
            assert_eq!(Measure::named(measure.as_str()), Some(*measure));
        }
        assert_eq!(Measure::named("logins"), None);
        assert!(Measure::TokenBad.is_of_tenants() && !Measure::Assign.is_of_tenants());
    }
}
