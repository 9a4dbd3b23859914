//! The catalogue: what is watched, from when on it is bad, who is told and what they find.

use std::collections::BTreeSet;

use larum_aggregate::Distinct;
use larum_aggregate::time::{LONGEST_WINDOW_S, SECOND_NS, Window};
use larum_event::{Kind, Op};
use larum_view::{Looks, Measure};

use crate::history::SpanS;

/// Who is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody is woken.
    Page,
    /// Somebody looks within a day.
    Ticket,
    /// Nobody: it shows that alerts arrive.
    None,
}

impl Severity {
    /// Its label text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Page => "page",
            Severity::Ticket => "ticket",
            Severity::None => "none",
        }
    }
}

/// What an alert is judged for, each apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Every tenant in every region.
    Tenant,
    /// Every region.
    Region,
    /// Every audit queue.
    Queue,
    /// Every source.
    Source,
    /// Every partition of a watched consumer group; on the wall clock.
    Consumer,
    /// Every source as Larum itself reads it; on the wall clock.
    Feed,
    /// Larum itself; on the wall clock.
    Larum,
}

impl Per {
    /// Whether it is judged by the runtime, on the wall clock.
    pub fn is_of_runtime(self) -> bool {
        matches!(self, Per::Consumer | Per::Feed | Per::Larum)
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Its name, which is also that of its runbook.
    pub name: String,
    /// Who is disturbed.
    pub severity: Severity,
    /// Who looks after it.
    pub owner: String,
    /// In plain words, with `{tenant}`, `{region}`, `{value}` and the like.
    pub summary: String,
    /// Uid of the dashboard to look at.
    pub dashboard: String,
    /// What it is judged for.
    pub per: Per,
    /// All of these hold,
    pub when: Vec<Condition>,
    /// and none of these.
    pub unless: Vec<Condition>,
    /// It fires after having held for so long, seconds.
    pub for_s: u32,
    /// It is resolved after not having held for so long, seconds.
    pub keep_firing_for_s: u32,
    /// Labels by which Alertmanager is to bundle it, for the routes of its configuration.
    pub group_by: Vec<String>,
    /// Tenants that it is judged for; `None`: all.
    pub tenants: Option<BTreeSet<String>>,
    /// Other limits for single tenants.
    pub overrides: Vec<Override>,
    /// Not to be told for a while.
    pub mutes: Vec<Mute>,
}

/// Another limit for a tenant: in place of `above` of the first condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Whose.
    pub tenant: String,
    /// The limit.
    pub above: f64,
}

/// An alert is not judged for a tenant, region or queue until a time; without any, not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mute {
    /// Whose.
    pub tenant: Option<String>,
    /// Where.
    pub region: Option<String>,
    /// Of which audit queue.
    pub queue: Option<String>,
    /// Until then, Unix seconds, event time.
    pub until_s: u32,
    /// Why.
    pub why: String,
}

impl Mute {
    /// Whether it applies at a tick.
    pub fn mutes(&self, (tenant, region, queue): (&str, &str, &str), tick: u32) -> bool {
        let is_of = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        tick < self.until_s && is_of(&self.tenant, tenant) && is_of(&self.region, region) && is_of(&self.queue, queue)
    }

    /// The second of a time in ns.
    pub fn until_s(ns: i64) -> u32 {
        (ns / SECOND_NS).clamp(0, i64::from(u32::MAX)) as u32
    }
}

/// A part of the requests may be bad: an objective over thirty days.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Its name.
    pub name: String,
    /// The requests.
    pub all: Measure,
    /// The bad ones.
    pub bad: Measure,
    /// Share of good ones that is wanted, below 1.
    pub target: f64,
    /// Tenants that it is kept for apart, besides all of a region together.
    pub tenants: BTreeSet<String>,
}

/// Two spans over which errors burn the budget so many times as fast as it lasts: both must.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurnPair {
    /// Shows that it is much.
    pub long_s: SpanS,
    /// Shows that it still goes on.
    pub short_s: SpanS,
    /// So many times as fast.
    pub factor: f64,
    /// So many events a second over the short one at least.
    pub floor: f64,
}

/// Where a condition looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// At what the alert is judged for.
    #[default]
    Own,
    /// At the region that this is in.
    Region,
}

/// What the runtime knows about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Wall clock minus the source's clock, s.
    ClockAge,
    /// Partitions that the source's clock does not wait for.
    LeftOut,
    /// Share of events of the last five minutes that were late.
    LateShare,
    /// Share of events of the last five minutes whose clock was ahead.
    SkewedShare,
    /// Share of records of the last five minutes that were refused.
    RejectedShare,
    /// Commits are refused: 1.
    CommitsFailing,
    /// Share of keys that scrapes do not show.
    HiddenShare,
    /// New names get no slot because memory is full: 1.
    AdmissionClosed,
    /// Pushes of the last five minutes that were given up or lost.
    PushesFailed,
    /// Broken invariants since the start.
    Violations,
}

impl Health {
    /// All of them, with their names in the catalogue.
    pub const ALL: [(&'static str, Health); 10] = [
        ("clock_age_seconds", Health::ClockAge),
        ("left_out_partitions", Health::LeftOut),
        ("late_share", Health::LateShare),
        ("skewed_share", Health::SkewedShare),
        ("rejected_share", Health::RejectedShare),
        ("commits_failing", Health::CommitsFailing),
        ("hidden_share", Health::HiddenShare),
        ("admission_closed", Health::AdmissionClosed),
        ("pushes_failed", Health::PushesFailed),
        ("invariant_violations", Health::Violations),
    ];

    /// Whether it is of a source, and not of the process.
    pub fn is_of_feed(self) -> bool {
        use Health::{ClockAge, LateShare, LeftOut, RejectedShare, SkewedShare};
        matches!(self, ClockAge | LeftOut | LateShare | SkewedShare | RejectedShare)
    }
}

/// What an audit queue lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditWhat {
    /// Records in it.
    Backlog,
    /// Records that it holds more than five minutes ago.
    Growth,
    /// Age of the oldest of them, s.
    Lag,
    /// Missing records.
    Missing,
}

/// Something that holds or does not, with a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All of them.
    All(Vec<Condition>),
    /// At least one.
    Any(Vec<Condition>),
    /// So many events a second.
    Rate {
        /// Of these, added up.
        of: Vec<Measure>,
        /// Over this.
        window_s: SpanS,
        /// Limit.
        above: f64,
        /// Whose.
        at: At,
    },
    /// A share of events.
    Ratio {
        /// Of these
        of: Measure,
        /// among these, added up,
        to: Vec<Measure>,
        /// over this.
        window_s: SpanS,
        /// Limit.
        above: f64,
        /// So many events a second at least, else a share says nothing.
        floor: f64,
        /// So many times the share over this span at least.
        usual: Option<(SpanS, f64)>,
        /// Whose.
        at: At,
    },
    /// So many times as many as usual.
    Rise {
        /// Of these, added up.
        of: Vec<Measure>,
        /// Over this
        window_s: SpanS,
        /// against this.
        usual_s: SpanS,
        /// So many times.
        factor: f64,
        /// So many events a second at least.
        floor: f64,
        /// Whose.
        at: At,
    },
    /// None any more, where there were some.
    Silent {
        /// Of these, added up.
        of: Vec<Measure>,
        /// Over this
        window_s: SpanS,
        /// against this.
        usual_s: SpanS,
        /// More events a second than this were usual.
        floor: f64,
        /// Whose.
        at: At,
    },
    /// So many different accounts or addresses.
    Different {
        /// Which.
        what: Distinct,
        /// Over this.
        window: Window,
        /// Limit.
        above: f64,
    },
    /// The budget of an objective burns.
    Burn {
        /// Its place in the catalogue.
        objective: usize,
        /// At least one of these.
        pairs: Vec<BurnPair>,
    },
    /// A quantile of latencies of token requests of a region.
    Quantile {
        /// What was asked.
        op: Op,
        /// Which, between 0 and 1.
        quantile: f64,
        /// Over this.
        window: Window,
        /// Limit, s.
        above: f64,
        /// So many requests a second at least.
        floor: f64,
        /// So many times the same over this window at least.
        usual: Option<(Window, f64)>,
    },
    /// What an audit queue lacks.
    Audit {
        /// Which.
        what: AuditWhat,
        /// Limit.
        above: f64,
    },
    /// The platform was changed not long ago, there.
    Changed {
        /// Not longer ago than this.
        within_s: u32,
    },
    /// It holds in so many regions of a source.
    Regions {
        /// So many.
        at_least: usize,
        /// What holds.
        of: Box<Condition>,
    },
    /// It holds for so many services of a region.
    Services {
        /// So many.
        at_least: usize,
        /// What holds.
        of: Box<Condition>,
    },
    /// Larum's own health.
    Health {
        /// What.
        what: Health,
        /// Limit.
        above: f64,
    },
    /// A watched consumer group is in this state or a worse one: the number of `larum_consumer_state`.
    Consumer {
        /// The state.
        at_least: i64,
    },
    /// Always.
    Always,
}

/// All alerts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// They.
    pub alerts: Vec<Alert>,
    /// What they burn.
    pub objectives: Vec<Objective>,
    /// Names of alerts that a scenario of the tests made fire, stay silent and resolve.
    pub proven: BTreeSet<String>,
}

impl Condition {
    /// Shows this and all conditions inside it.
    pub fn visit(&self, show: &mut dyn FnMut(&Condition)) {
        show(self);
        match self {
            Condition::All(inner) | Condition::Any(inner) => inner.iter().for_each(|one| one.visit(show)),
            Condition::Regions { of, .. } | Condition::Services { of, .. } => of.visit(show),
            _ => {}
        }
    }

    /// With fewer logins and token requests in the longest window of what it is judged for it cannot hold.
    pub fn events_min(&self, objectives: &[Objective]) -> u64 {
        let of = |floor: f64, span_s: SpanS| (floor * f64::from(span_s)).floor() as u64;
        let each = |inner: &[Condition]| inner.iter().map(|one| one.events_min(objectives)).collect::<Vec<_>>();
        match self {
            Condition::All(inner) => each(inner).into_iter().max().unwrap_or(0),
            Condition::Any(inner) => each(inner).into_iter().min().unwrap_or(0),
            // What is named twice is counted twice.
            Condition::Ratio { floor, window_s, to: many, at: At::Own, .. }
            | Condition::Rise { floor, window_s, of: many, at: At::Own, .. } => {
                of(*floor / many.len().max(1) as f64, *window_s)
            }
            Condition::Silent { floor, usual_s, of: many, at: At::Own, .. } => {
                of(*floor / many.len().max(1) as f64, *usual_s)
            }
            // Of nobody in particular.
            Condition::Burn { objective, .. } if objectives.get(*objective).is_none_or(|of| of.tenants.is_empty()) => {
                u64::MAX
            }
            Condition::Burn { pairs, .. } => {
                let within =
                    |pair: &BurnPair| if pair.short_s > LONGEST_WINDOW_S { 0 } else { of(pair.floor, pair.short_s) };
                pairs.iter().map(within).min().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// The kinds of events that it looks at.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        let mut kinds = BTreeSet::new();
        let of = |measure: Measure| match measure {
            Measure::Token | Measure::TokenBad | Measure::TokenDenied | Measure::TokenSlow => Kind::Token,
            Measure::Login | Measure::LoginSuccess | Measure::LoginFailure => Kind::Login,
            Measure::LoginDenied | Measure::LoginBad | Measure::LoginSlow => Kind::Login,
            _ => Kind::Permission,
        };
        self.visit(&mut |condition| match condition {
            Condition::Rate { of: measures, .. }
            | Condition::Rise { of: measures, .. }
            | Condition::Silent { of: measures, .. } => kinds.extend(measures.iter().map(|measure| of(*measure))),
            Condition::Ratio { of: measure, .. } => kinds.extend([of(*measure)]),
            Condition::Burn { .. } => kinds.extend([Kind::Login, Kind::Token]),
            Condition::Quantile { .. } => kinds.extend([Kind::Token]),
            Condition::Different { .. } => kinds.extend([Kind::Login]),
            _ => {}
        });
        kinds
    }
}

impl Alert {
    /// With fewer logins and token requests in the longest window it cannot hold for a tenant.
    pub fn events_min(&self, objectives: &[Objective]) -> u64 {
        if !self.overrides.is_empty() {
            return 0;
        }
        self.when.iter().map(|condition| condition.events_min(objectives)).max().unwrap_or(0)
    }

    /// The kinds of events that it looks at.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.when.iter().flat_map(Condition::kinds).collect()
    }
}

impl Catalogue {
    /// The alert of that name.
    pub fn alert(&self, name: &str) -> Option<&Alert> {
        self.alerts.iter().find(|alert| alert.name == name)
    }

    /// Which keys have to be looked at.
    pub fn looks(&self) -> Looks {
        let of_tenants = self.alerts.iter().filter(|alert| alert.per == Per::Tenant);
        Looks {
            events_min: of_tenants.map(|alert| alert.events_min(&self.objectives)).min().unwrap_or(u64::MAX),
            tenants: self.objectives.iter().any(|objective| !objective.tenants.is_empty()),
        }
    }

    /// Tenants that have objectives of their own.
    pub fn has_history(&self, tenant: &str) -> bool {
        self.objectives.iter().any(|objective| objective.tenants.contains(tenant))
    }
}
