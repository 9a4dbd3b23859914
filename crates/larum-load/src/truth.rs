//! What a reader of every record sent must find, exactly.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What logins are counted by; the texts are those of the labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoginKey {
    /// Customer of the platform.
    pub tenant: String,
    /// Where it was served.
    pub region: String,
    /// How it ended.
    pub outcome: String,
    /// Why; `none` where nothing was said.
    pub reason: String,
}

/// What token requests are counted by; the texts are those of the labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenKey {
    /// Customer of the platform.
    pub tenant: String,
    /// Where it was served.
    pub region: String,
    /// What was asked.
    pub op: String,
    /// How it ended.
    pub outcome: String,
    /// Why; `none` where nothing was said.
    pub reason: String,
}

/// What decisions on permissions are counted by; the texts are those of the labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PermissionKey {
    /// Customer of the platform.
    pub tenant: String,
    /// Where it was served.
    pub region: String,
    /// The service that decided.
    pub service: String,
    /// What was asked.
    pub op: String,
    /// How it ended.
    pub outcome: String,
}

/// What changes of the platform are counted by; the texts are those of the labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangeKey {
    /// Where.
    pub region: String,
    /// The service that was changed.
    pub service: String,
    /// What was done.
    pub op: String,
}

/// What audit records are counted by; the texts are those of the labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AuditKey {
    /// The queue that they came out of.
    pub queue: String,
    /// Where.
    pub region: String,
}

/// A scenario that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioTruth {
    /// See [`crate::Scenario::name`].
    pub name: String,
    /// The tenant that is hit, if it is one.
    pub tenant: Option<String>,
    /// The region that is hit, if it is one.
    pub region: Option<String>,
    /// Nominal time at which it began, Unix ns.
    pub start_ns: i64,
    /// Nominal time at which it ended, Unix ns; none while it lasts.
    pub end_ns: Option<i64>,
}

/// Exact counts of what was sent so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Records, well-formed or not.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Logins, weighted by `count`.
    #[serde(with = "rows")]
    pub logins: BTreeMap<LoginKey, u64>,
    /// Token requests, weighted by `count`.
    #[serde(with = "rows")]
    pub tokens: BTreeMap<TokenKey, u64>,
    /// Decisions on permissions, weighted by `count`.
    #[serde(with = "rows")]
    pub permissions: BTreeMap<PermissionKey, u64>,
    /// Changes of the platform.
    #[serde(with = "rows")]
    pub changes: BTreeMap<ChangeKey, u64>,
    /// Audit records that came out of their queue.
    #[serde(with = "rows")]
    pub audits: BTreeMap<AuditKey, u64>,
    /// Well-formed events by kind, unweighted.
    pub events: BTreeMap<String, u64>,
    /// Malformed records by the reason they must be refused for.
    pub rejected: BTreeMap<String, u64>,
    /// Events whose time lies up to 2 s further back than the delivery delay explains.
    pub out_of_order: u64,
    /// Events whose time lies 200 to 600 s back.
    pub late: u64,
    /// Events whose time lies 2 to 24 h ahead.
    pub skewed: u64,
    /// Scenarios that have begun, in the order of the profile.
    pub scenarios: Vec<ScenarioTruth>,
}

impl Truth {
    /// Every counted series: metric name, labels sorted by name (but for `source`, which the reader sets), count.
    pub fn series(&self) -> impl Iterator<Item = (&'static str, Vec<(&'static str, &str)>, u64)> {
        let logins = self.logins.iter().map(|(key, count)| {
            let LoginKey { tenant, region, outcome, reason } = key;
            let labels = [("outcome", outcome), ("reason", reason), ("region", region), ("tenant", tenant)];
            ("larum_login_attempts_total", labels.map(as_str).to_vec(), *count)
        });
        let tokens = self.tokens.iter().map(|(key, count)| {
            let TokenKey { tenant, region, op, outcome, reason } = key;
            let labels = [("op", op), ("outcome", outcome), ("reason", reason), ("region", region), ("tenant", tenant)];
            ("larum_token_requests_total", labels.map(as_str).to_vec(), *count)
        });
        let permissions = self.permissions.iter().map(|(key, count)| {
            let PermissionKey { tenant, region, service, op, outcome } = key;
            let labels =
                [("op", op), ("outcome", outcome), ("region", region), ("service", service), ("tenant", tenant)];
            ("larum_permission_decisions_total", labels.map(as_str).to_vec(), *count)
        });
        let changes = self.changes.iter().map(|(key, count)| {
            let ChangeKey { region, service, op } = key;
            let labels = [("op", op), ("region", region), ("service", service)];
            ("larum_change_events_total", labels.map(as_str).to_vec(), *count)
        });
        let audits = self.audits.iter().map(|(key, count)| {
            let AuditKey { queue, region } = key;
            ("larum_audit_records_total", [("queue", queue), ("region", region)].map(as_str).to_vec(), *count)
        });
        logins.chain(tokens).chain(permissions).chain(changes).chain(audits)
    }
}

fn as_str<'a>((name, value): (&'static str, &'a String)) -> (&'static str, &'a str) {
    (name, value.as_str())
}

/// Maps as lists of rows, since JSON objects take no structured keys.
mod rows {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Row<K> {
        #[serde(flatten)]
        key: K,
        count: u64,
    }

    pub fn serialize<K: Serialize, S: Serializer>(map: &BTreeMap<K, u64>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(map.iter().map(|(key, count)| Row { key, count: *count }))
    }

    pub fn deserialize<'de, K, D>(from: D) -> Result<BTreeMap<K, u64>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        D: Deserializer<'de>,
    {
        let rows = Vec::<Row<K>>::deserialize(from)?;
        Ok(rows.into_iter().map(|row| (row.key, row.count)).collect())
    }
}
