//! What an authentication event is: the closed vocabularies and the borrowed fields.

use crate::words::{Table, Words};

/// Declares a closed vocabulary: an enum, its texts, and the way back from a text.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in declaration order; the position is the value's stable index.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The text that stands for it on the wire and in labels.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The value that a text stands for, if it is listed.
            #[inline]
            pub(crate) fn from_words(words: Words) -> Option<Self> {
                static TABLE: Table<{ $name::ALL.len() }> = Table::new([$($text),+]);
                TABLE.find(words).map(|at| Self::ALL[at])
            }
        }
    };
}

vocabulary! {
    /// What sort of thing happened.
    Kind {
        /// Somebody tried to sign in.
        Login = "login",
        /// A token was issued, refreshed, exchanged, revoked or introspected.
        Token = "token",
        /// A permission was assigned, removed, checked or escalated.
        Permission = "permission",
        /// A record entered or left an audit queue.
        Audit = "audit",
        /// The platform itself was changed.
        Change = "change",
    }
}

vocabulary! {
    /// What was asked, over all kinds. [`Op::of`] gives the one that counts for a kind.
    Op {
        /// Absent or not listed.
        Other = "other",
        /// Login with a password.
        Password = "password",
        /// Login: second factor.
        Mfa = "mfa",
        /// Login through an identity provider.
        Sso = "sso",
        /// Login with a passkey.
        Passkey = "passkey",
        /// Login with an API key.
        ApiKey = "api_key",
        /// Token: any grant but refresh and exchange.
        Issue = "issue",
        /// Token: grant refresh_token.
        Refresh = "refresh",
        /// Token: RFC 8693.
        Exchange = "exchange",
        /// Token: revocation.
        Revoke = "revoke",
        /// Token: introspection.
        Introspect = "introspect",
        /// Permission: assigned.
        Assign = "assign",
        /// Permission: removed.
        Remove = "remove",
        /// Permission: checked.
        Check = "check",
        /// Permission: escalated.
        Escalate = "escalate",
        /// Audit: put into a queue.
        Enqueue = "enqueue",
        /// Audit: came out of a queue.
        Deliver = "deliver",
        /// Change: deployment.
        Deploy = "deploy",
        /// Change: configuration.
        Config = "config",
        /// Change: a secret was rotated.
        SecretRotation = "secret_rotation",
        /// Change: rolled back.
        Rollback = "rollback",
        /// Change: drift was found.
        Drift = "drift",
        /// Change: confirmed.
        Confirm = "confirm",
    }
}

impl Op {
    /// Ops of a kind that are listed; the position is the op's index within its kind.
    pub const fn listed(kind: Kind) -> &'static [Op] {
        match kind {
            Kind::Login => &[Op::Other, Op::Password, Op::Mfa, Op::Sso, Op::Passkey, Op::ApiKey],
            Kind::Token => &[Op::Other, Op::Issue, Op::Refresh, Op::Exchange, Op::Revoke, Op::Introspect],
            Kind::Permission => &[Op::Other, Op::Assign, Op::Remove, Op::Check, Op::Escalate],
            Kind::Audit => &[Op::Enqueue, Op::Deliver],
            Kind::Change => {
                &[Op::Other, Op::Deploy, Op::Config, Op::SecretRotation, Op::Rollback, Op::Drift, Op::Confirm]
            }
        }
    }

    /// The op that counts for a kind, if `op` (none: absent, or no op of any kind) was said: `other` when it is not
    /// listed for the kind, `deliver` for audit.
    pub fn of(kind: Kind, op: Option<Op>) -> Op {
        match (op.filter(|op| Self::listed(kind).contains(op)), kind) {
            (Some(op), _) => op,
            (None, Kind::Audit) => Op::Deliver,
            (None, _) => Op::Other,
        }
    }
}

vocabulary! {
    /// How it ended. Four, not two: a second factor asked for is no failure.
    Outcome {
        /// It was done.
        Success = "success",
        /// It went wrong.
        Failure = "failure",
        /// A further step was asked for.
        Challenge = "challenge",
        /// It was refused by a rule.
        Denied = "denied",
    }
}

vocabulary! {
    /// Why it ended so.
    Reason {
        /// Null or absent.
        None = "none",
        /// A wrong password or key.
        BadCredentials = "bad_credentials",
        /// No such account.
        UnknownAccount = "unknown_account",
        /// The second factor.
        Mfa = "mfa",
        /// The account is locked.
        Locked = "locked",
        /// A rate limiter said no.
        RateLimited = "rate_limited",
        /// A policy said no.
        Policy = "policy",
        /// Something had expired.
        Expired = "expired",
        /// A token was used twice.
        TokenReuse = "token_reuse",
        /// The grant was not valid.
        InvalidGrant = "invalid_grant",
        /// The client was not valid.
        InvalidClient = "invalid_client",
        /// Something behind the service failed: ours, not the user's.
        UpstreamError = "upstream_error",
        /// It took too long: ours, not the user's.
        Timeout = "timeout",
        /// Any other text.
        Other = "other",
    }
}

impl Reason {
    /// The reason that a text stands for: unknown texts count as `other`, the text `none` as well
    /// (only null and absence are `none`).
    #[inline]
    pub(crate) fn of(words: Option<Words>) -> Reason {
        match words.and_then(Reason::from_words) {
            Some(Reason::None) | None => Reason::Other,
            Some(reason) => reason,
        }
    }
}

vocabulary! {
    /// What an actor is.
    ActorType {
        /// A person.
        User = "user",
        /// A service.
        Service = "service",
        /// An API key.
        ApiKey = "api_key",
        /// The platform itself.
        System = "system",
    }
}

vocabulary! {
    /// Place in an escalation chain.
    Hop {
        /// Where the request entered.
        Gateway = "gateway",
        /// Where it was decided.
        Evaluator = "evaluator",
        /// Where it was enforced.
        Enforcer = "enforcer",
    }
}

/// What was assigned or asked for; `permission` events only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PermissionFields<'a> {
    /// Who gets it.
    pub subject: Option<&'a str>,
    /// Which role.
    pub role: Option<&'a str>,
    /// On what.
    pub resource: Option<&'a str>,
}

/// Where an audit record stands in its queue; `audit` events only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditFields<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// Who put it in.
    pub producer: Option<&'a str>,
    /// The producer's epoch; a new one starts `seq` again.
    pub epoch: u64,
    /// Counts up by one for each (queue, producer, epoch).
    pub seq: Option<u64>,
    /// When it was put in, Unix ns.
    pub enqueued_time_ns: Option<i64>,
}

/// What was changed; `change` events only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeFields<'a> {
    /// The change's own id.
    pub id: &'a str,
    /// What was changed.
    pub subject: Option<&'a str>,
    /// Its state before.
    pub from: Option<&'a str>,
    /// Its state after.
    pub to: Option<&'a str>,
    /// Who changed it.
    pub by: Option<&'a str>,
    /// Who approved.
    pub approved_by: Option<&'a str>,
}

/// One decoded event. Texts borrow from the record or, where they held escapes, from the decoder's scratch.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthEvent<'a> {
    /// When the thing happened, Unix ns.
    pub time_ns: i64,
    /// Unique per source, where given.
    pub id: Option<&'a str>,
    /// What sort of thing happened.
    pub kind: Kind,
    /// What was asked.
    pub op: Op,
    /// Stands for so many equal events, 1 to 1,000,000.
    pub count: u32,
    /// Customer of the platform; empty only for `audit` and `change`. Hostile.
    pub tenant: &'a str,
    /// Where it was served, if said.
    pub region: Option<&'a str>,
    /// The service that emitted it, if said.
    pub service: Option<&'a str>,
    /// Who: id. Never leaves Larum.
    pub actor_id: Option<&'a str>,
    /// Who: type.
    pub actor_type: Option<ActorType>,
    /// From where: address. Never leaves Larum.
    pub source_ip: Option<&'a str>,
    /// From where: autonomous system.
    pub source_asn: Option<u32>,
    /// From where: user agent. Never leaves Larum.
    pub source_ua: Option<&'a str>,
    /// OAuth client or application.
    pub client: Option<&'a str>,
    /// How it ended; `None` only for `audit` and `change`.
    pub outcome: Option<Outcome>,
    /// Why it ended so.
    pub reason: Reason,
    /// Service time in ns; `None` = not measured.
    pub latency_ns: Option<u64>,
    /// W3C trace id.
    pub trace_id: Option<[u8; 16]>,
    /// W3C span id.
    pub span_id: Option<[u8; 8]>,
    /// W3C span id of the caller.
    pub parent_span_id: Option<[u8; 8]>,
    /// Place in an escalation chain; `permission` only.
    pub hop: Option<Hop>,
    /// `permission` only.
    pub permission: Option<PermissionFields<'a>>,
    /// `audit` only.
    pub audit: Option<AuditFields<'a>>,
    /// `change` only.
    pub change: Option<ChangeFields<'a>>,
}
