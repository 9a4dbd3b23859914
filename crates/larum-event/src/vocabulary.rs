//! The closed vocabularies of the contract.

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
