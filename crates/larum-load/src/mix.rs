//! What everyday traffic consists of: the tables of shares, and the facts of one event drawn from them.

use larum_event::{Kind, Op, Outcome, Reason};
use rand_distr::StandardNormal;

use crate::dice::{Chance, Dice};
use crate::scribe::service_of;

/// What the shares of a table add up to.
pub const WHOLE: u32 = 1000;

/// A table of shares, in thousandths; the likeliest first makes drawing fast.
pub type Table<T> = [(u32, T)];

/// One value of a table.
#[inline]
pub fn pick<T: Copy>(table: &Table<T>, dice: &mut Dice) -> T {
    let mut roll = dice.below(WHOLE);
    let mut chosen = table[0].1;
    for (share, value) in table {
        chosen = *value;
        if roll < *share {
            break;
        }
        roll -= share;
    }
    chosen
}

/// What an everyday record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Somebody signs in.
    Login,
    /// A client refreshes its token.
    Refresh,
    /// A service gets a token by its credentials.
    Issue,
    /// A token is exchanged, introspected, revoked.
    TokenOther,
    /// A permission is checked.
    Check,
    /// An audit record comes out of its queue.
    Deliver,
    /// The platform is changed.
    Change,
}

/// Everyday traffic: about one login to two refreshes and one issue, so that a test of the login and token signals is
/// not mostly permission checks, which outnumber all else in the field.
pub const MIX: &Table<Activity> = &[
    (450, Activity::Refresh),
    (200, Activity::Login),
    (200, Activity::Issue),
    (100, Activity::Check),
    (30, Activity::TokenOther),
    (19, Activity::Deliver),
    (1, Activity::Change),
];

/// Its share of everyday records.
pub fn share(activity: Activity) -> f64 {
    let thousandths: u32 = MIX.iter().filter(|(_, of)| *of == activity).map(|(share, _)| share).sum();
    f64::from(thousandths) / f64::from(WHOLE)
}

/// How an event ends: an outcome and a reason that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Ending {
    /// It was done.
    Success,
    /// A wrong password or key.
    BadCredentials,
    /// No such account.
    UnknownAccount,
    /// The second factor was wrong.
    SecondFactorWrong,
    /// The account is locked.
    Locked,
    /// Something had expired.
    Expired,
    /// A refresh token came twice.
    TokenReuse,
    /// The grant was not valid.
    InvalidGrant,
    /// The client was not valid.
    InvalidClient,
    /// Something behind the service failed.
    UpstreamError,
    /// It took too long.
    Timeout,
    /// A reason that the contract does not list, so it counts as `other`.
    Unlisted,
    /// The second factor is asked for.
    SecondFactorAsked,
    /// A rate limiter said no.
    RateLimited,
    /// A policy said no.
    AgainstPolicy,
}

impl Ending {
    /// Every ending; the position is its index.
    pub const ALL: &'static [Ending] = &[
        Ending::Success,
        Ending::BadCredentials,
        Ending::UnknownAccount,
        Ending::SecondFactorWrong,
        Ending::Locked,
        Ending::Expired,
        Ending::TokenReuse,
        Ending::InvalidGrant,
        Ending::InvalidClient,
        Ending::UpstreamError,
        Ending::Timeout,
        Ending::Unlisted,
        Ending::SecondFactorAsked,
        Ending::RateLimited,
        Ending::AgainstPolicy,
    ];

    /// Outcome and reason as they count.
    #[inline]
    pub const fn parts(self) -> (Outcome, Reason) {
        match self {
            Ending::Success => (Outcome::Success, Reason::None),
            Ending::BadCredentials => (Outcome::Failure, Reason::BadCredentials),
            Ending::UnknownAccount => (Outcome::Failure, Reason::UnknownAccount),
            Ending::SecondFactorWrong => (Outcome::Failure, Reason::Mfa),
            Ending::Locked => (Outcome::Failure, Reason::Locked),
            Ending::Expired => (Outcome::Failure, Reason::Expired),
            Ending::TokenReuse => (Outcome::Failure, Reason::TokenReuse),
            Ending::InvalidGrant => (Outcome::Failure, Reason::InvalidGrant),
            Ending::InvalidClient => (Outcome::Failure, Reason::InvalidClient),
            Ending::UpstreamError => (Outcome::Failure, Reason::UpstreamError),
            Ending::Timeout => (Outcome::Failure, Reason::Timeout),
            Ending::Unlisted => (Outcome::Failure, Reason::Other),
            Ending::SecondFactorAsked => (Outcome::Challenge, Reason::Mfa),
            Ending::RateLimited => (Outcome::Denied, Reason::RateLimited),
            Ending::AgainstPolicy => (Outcome::Denied, Reason::Policy),
        }
    }
}

/// Logins of a workforce tenant (even index): of successes and failures together, 10 % fail.
const LOGIN_WORKFORCE: &Table<Ending> = &[
    (810, Ending::Success),
    (70, Ending::BadCredentials),
    (80, Ending::SecondFactorAsked),
    (5, Ending::UnknownAccount),
    (6, Ending::SecondFactorWrong),
    (4, Ending::Locked),
    (3, Ending::Expired),
    (1, Ending::UpstreamError),
    (1, Ending::Timeout),
    (8, Ending::RateLimited),
    (12, Ending::AgainstPolicy),
];

/// Logins of a consumer tenant (odd index): of successes and failures together, half fail.
const LOGIN_CONSUMER: &Table<Ending> = &[
    (460, Ending::Success),
    (350, Ending::BadCredentials),
    (75, Ending::UnknownAccount),
    (50, Ending::SecondFactorAsked),
    (10, Ending::SecondFactorWrong),
    (10, Ending::Locked),
    (8, Ending::Expired),
    (5, Ending::Unlisted),
    (1, Ending::UpstreamError),
    (1, Ending::Timeout),
    (22, Ending::RateLimited),
    (8, Ending::AgainstPolicy),
];

const REFRESH: &Table<Ending> = &[
    (965, Ending::Success),
    (14, Ending::Expired),
    (13, Ending::InvalidGrant),
    (2, Ending::TokenReuse),
    (4, Ending::RateLimited),
    (1, Ending::UpstreamError),
    (1, Ending::Timeout),
];

const ISSUE: &Table<Ending> = &[
    (980, Ending::Success),
    (9, Ending::InvalidClient),
    (3, Ending::InvalidGrant),
    (5, Ending::RateLimited),
    (2, Ending::AgainstPolicy),
    (1, Ending::UpstreamError),
];

const TOKEN_OTHER: &Table<Ending> = &[(980, Ending::Success), (10, Ending::Expired), (10, Ending::InvalidGrant)];

const CHECK: &Table<Ending> = &[(930, Ending::Success), (70, Ending::AgainstPolicy)];

const LOGIN_OPS: &Table<Op> =
    &[(620, Op::Password), (180, Op::Sso), (80, Op::Mfa), (70, Op::Passkey), (50, Op::ApiKey)];

/// `Other` stands for an event that says no op.
const TOKEN_OTHER_OPS: &Table<Op> = &[(400, Op::Exchange), (320, Op::Introspect), (240, Op::Revoke), (40, Op::Other)];

/// Events that stand for several.
const COUNTED: Chance = Chance::per_mille(5);
/// Events that were not measured.
const UNMEASURED: Chance = Chance::per_mille(20);
/// Events that say they took no time at all.
const INSTANT: Chance = Chance::per_mille(5);

/// A log-normal distribution of service times.
pub struct ServiceTime {
    median_ms: f64,
    /// Standard deviation of the logarithm: ln(p99 / median) / 2.3263.
    sigma: f64,
}

pub const LOGIN_TIME: ServiceTime = ServiceTime { median_ms: 120.0, sigma: 0.691_8 };
pub const REFRESH_TIME: ServiceTime = ServiceTime { median_ms: 15.0, sigma: 0.517_5 };
const ISSUE_TIME: ServiceTime = ServiceTime { median_ms: 30.0, sigma: 0.517_5 };
const TOKEN_OTHER_TIME: ServiceTime = ServiceTime { median_ms: 10.0, sigma: 0.517_5 };
pub const CHECK_TIME: ServiceTime = ServiceTime { median_ms: 3.0, sigma: 0.517_5 };
/// Refused by a limiter before any work was done.
pub const LIMITED_TIME: ServiceTime = ServiceTime { median_ms: 1.5, sigma: 0.3 };
/// Service times are cut here, 10 minutes in 0.1 us.
pub const LATENCY_E4_MAX: u64 = 600_000 * 10_000;

impl ServiceTime {
    /// A service time in 1/10,000 ms, or none.
    #[inline]
    pub fn draw(&self, dice: &mut Dice) -> Option<u64> {
        let ms = self.median_ms * (self.sigma * dice.sample(&StandardNormal)).exp();
        let roll = dice.roll();
        if UNMEASURED.holds(roll) {
            return None;
        }
        // The other end of the rolls, so that one roll decides both.
        if INSTANT.holds(!roll) {
            return Some(0);
        }
        Some(((ms * 1e4) as u64).min(LATENCY_E4_MAX))
    }
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Stands for the account.
    pub account: u32,
    /// A service, not a person.
    pub is_service: bool,
    /// From where.
    pub origin: Origin,
}

/// Addresses that somebody comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The account's own.
    Own,
    /// One of an attack's few.
    Few(u8),
    /// One of an attack's very many.
    Many(u32),
}

/// A step of an escalation, as its services tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainStep {
    /// Index of its place in the chain.
    pub hop: usize,
    /// The trace, the same for all steps.
    pub trace: (u64, u64),
    /// This step.
    pub span: u64,
    /// The step before.
    pub parent: Option<u64>,
}

/// Where and when an event happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the tenant.
    pub tenant: usize,
    /// Index of the region.
    pub region: usize,
    /// The event's own time, Unix ns.
    pub time_ns: i64,
}

/// A login, token or permission event, before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What sort of thing happens.
    pub kind: Kind,
    /// What is asked; `Other` says none.
    pub op: Op,
    /// How it ends.
    pub ending: Ending,
    /// Where and when.
    pub place: Place,
    /// Service time in 1/10,000 ms, if measured.
    pub latency_e4: Option<u64>,
    /// Stands for so many equal events.
    pub count: u32,
    /// Who asks.
    pub caller: Caller,
    /// Of an escalation; others have a trace at times, and any hop.
    pub chain: Option<ChainStep>,
    /// The service that tells of it.
    pub service: &'static str,
}

/// People with an account, per tenant; few of them do most of what is done.
pub const PEOPLE: u32 = 4096;
/// Services with credentials, per tenant.
const SERVICES: u32 = 16;

/// An everyday event; `Deliver` and `Change`, which have no outcome, are drawn elsewhere and count as a check here.
#[inline]
pub fn everyday(activity: Activity, place: Place, dice: &mut Dice) -> Facts {
    let (kind, endings, time) = match activity {
        Activity::Login if is_consumer(place.tenant) => (Kind::Login, LOGIN_CONSUMER, &LOGIN_TIME),
        Activity::Login => (Kind::Login, LOGIN_WORKFORCE, &LOGIN_TIME),
        Activity::Refresh => (Kind::Token, REFRESH, &REFRESH_TIME),
        Activity::Issue => (Kind::Token, ISSUE, &ISSUE_TIME),
        Activity::TokenOther => (Kind::Token, TOKEN_OTHER, &TOKEN_OTHER_TIME),
        Activity::Check | Activity::Deliver | Activity::Change => (Kind::Permission, CHECK, &CHECK_TIME),
    };
    let op = match activity {
        Activity::Login => pick(LOGIN_OPS, dice),
        Activity::Refresh => Op::Refresh,
        Activity::Issue => Op::Issue,
        Activity::TokenOther => pick(TOKEN_OTHER_OPS, dice),
        Activity::Check | Activity::Deliver | Activity::Change => Op::Check,
    };
    let ending = pick(endings, dice);
    let time = if ending == Ending::RateLimited { &LIMITED_TIME } else { time };
    let is_service = matches!(activity, Activity::Issue) || op == Op::ApiKey;
    let member = if is_service { dice.below(SERVICES) } else { dice.below(PEOPLE).min(dice.below(PEOPLE)) };
    let account = (place.tenant as u32).wrapping_mul(PEOPLE).wrapping_add(member);
    let caller = Caller { account, is_service, origin: Origin::Own };
    let count = if dice.hit(COUNTED) { 2 + dice.below(49) } else { 1 };
    Facts {
        kind,
        op,
        ending,
        place,
        latency_e4: time.draw(dice),
        count,
        caller,
        chain: None,
        service: service_of(kind),
    }
}

/// Tenants at odd places serve consumers, the others a workforce.
pub fn is_consumer(tenant: usize) -> bool {
    tenant % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_whole_and_endings_in_order() {
        let sum = |table: &Table<Ending>| table.iter().map(|(share, _)| share).sum::<u32>();
        for table in [LOGIN_WORKFORCE, LOGIN_CONSUMER, REFRESH, ISSUE, TOKEN_OTHER, CHECK] {
            assert_eq!(sum(table), WHOLE, "{table:?}");
        }
        for table in [LOGIN_OPS, TOKEN_OTHER_OPS] {
            assert_eq!(table.iter().map(|(share, _)| share).sum::<u32>(), WHOLE, "{table:?}");
        }
        assert_eq!(MIX.iter().map(|(share, _)| share).sum::<u32>(), WHOLE);
        assert!(Ending::ALL.iter().enumerate().all(|(at, ending)| *ending as usize == at));
    }

    #[test]
    fn service_times_have_their_median_and_tail() {
        let mut dice = Dice::new(7);
        for (time, p99_ms) in [(LOGIN_TIME, 600.0), (REFRESH_TIME, 50.0)] {
            let mut drawn: Vec<u64> = (0..100_000).filter_map(|_| time.draw(&mut dice)).collect();
            drawn.sort_unstable();
            let at = |share: f64| drawn[(drawn.len() as f64 * share) as usize] as f64 / 1e4;
            assert!((at(0.5) / time.median_ms - 1.0).abs() < 0.03, "{}", at(0.5));
            assert!((at(0.99) / p99_ms - 1.0).abs() < 0.06, "{}", at(0.99));
        }
    }
}
