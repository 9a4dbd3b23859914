//! A slow, obvious model of the wire contract on top of serde_json. It shares no code with the reader.

use std::collections::HashSet;

use serde_json::value::RawValue;

/// What the model makes of a record.
#[derive(Debug, PartialEq, Clone)]
pub struct Model {
    pub time_ns: i64,
    pub kind: String,
    pub op: String,
    pub count: u64,
    pub outcome: Option<String>,
    pub reason: String,
    pub latency_ns: Option<u64>,
    pub texts: Vec<(&'static str, Option<String>)>,
    pub numbers: Vec<(&'static str, Option<u64>)>,
    pub enqueued_ns: Option<i64>,
}

enum Node {
    Null,
    Bool,
    Number(String),
    Text(String),
    Array,
    Object(Vec<(String, Node)>),
}

/// Reads any JSON, keeping key order, duplicates and number texts; refuses half surrogates.
fn node(raw: &RawValue) -> Option<Node> {
    let text = raw.get();
    Some(match text.as_bytes()[0] {
        b'n' => Node::Null,
        b't' | b'f' => Node::Bool,
        b'"' => Node::Text(serde_json::from_str(text).ok()?),
        b'[' => {
            for item in serde_json::from_str::<Vec<Box<RawValue>>>(text).ok()? {
                node(&item)?;
            }
            Node::Array
        }
        b'{' => {
            let Pairs(pairs) = serde_json::from_str(text).ok()?;
            Node::Object(pairs.into_iter().map(|(k, v)| Some((k, node(&v)?))).collect::<Option<_>>()?)
        }
        _ => Node::Number(text.to_string()),
    })
}

struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, Box<RawValue>>()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        d.deserialize_map(Visit)
    }
}

/// Nesting, counted on the text: brackets outside strings.
fn depth(text: &str) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0usize, 0, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => {
                now += 1;
                most = most.max(now);
            }
            '}' | ']' if !in_string => now -= 1,
            _ => {}
        }
    }
    most
}

const TEXTS: [(&str, &str); 21] = [
    ("", "id"),
    ("", "tenant"),
    ("", "region"),
    ("", "service"),
    ("", "client"),
    ("", "queue"),
    ("", "producer"),
    ("actor", "id"),
    ("actor", "type"),
    ("source", "ip"),
    ("source", "ua"),
    ("permission", "subject"),
    ("permission", "role"),
    ("permission", "resource"),
    ("change", "id"),
    ("change", "subject"),
    ("change", "from"),
    ("change", "to"),
    ("change", "by"),
    ("change", "approved_by"),
    ("", "hop"),
];
const EVENT_KEYS: [&str; 26] = [
    "v",
    "time",
    "id",
    "kind",
    "op",
    "count",
    "tenant",
    "region",
    "service",
    "actor",
    "source",
    "client",
    "outcome",
    "reason",
    "latency_ms",
    "trace_id",
    "span_id",
    "parent_span_id",
    "hop",
    "permission",
    "queue",
    "producer",
    "epoch",
    "seq",
    "enqueued_time",
    "change",
];

fn nested_keys(object: &str) -> &'static [&'static str] {
    match object {
        "actor" => &["id", "type"],
        "source" => &["ip", "asn", "ua"],
        "permission" => &["subject", "role", "resource"],
        _ => &["id", "subject", "from", "to", "by", "approved_by"],
    }
}

/// A decimal text as (negative, digits, exponent of the last digit).
fn decimal(text: &str) -> (bool, Vec<u8>, i64) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |t| (true, t));
    let lower = text.to_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent = exponent.parse::<i64>().unwrap_or(if exponent.starts_with('-') { -999_999 } else { 999_999 });
    let (int, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = int.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    (negative, digits, exponent.clamp(-999_999, 999_999) - fraction.len() as i64)
}

/// |text| x 10^scale cut to an integer, and whether something was cut; None when huge.
fn scaled(text: &str, scale: i64) -> (bool, Option<u128>, bool) {
    let (negative, mut digits, exponent) = decimal(text);
    let shift = exponent + scale;
    while digits.first() == Some(&0) {
        digits.remove(0);
    }
    if digits.is_empty() {
        return (negative, Some(0), false);
    }
    let mut rest = false;
    if shift < 0 {
        let cut = (-shift).min(digits.len() as i64) as usize;
        rest = digits.split_off(digits.len() - cut).iter().any(|d| *d != 0);
    }
    if digits.len() as i64 + shift.max(0) > 30 {
        return (negative, None, rest);
    }
    let int = digits.iter().fold(0u128, |v, d| v * 10 + u128::from(*d)) * 10u128.pow(shift.max(0) as u32);
    (negative, Some(int), rest)
}

fn valid_time(ns: i128) -> Option<i64> {
    let (min, max) = (946_684_800_000_000_000i128, 4_102_444_800_000_000_000i128);
    (min..=max).contains(&ns).then_some(ns as i64)
}

fn time(node: &Node) -> Option<i64> {
    match node {
        Node::Number(text) => {
            let (negative, int, rest) = scaled(text, 9);
            let int = int?;
            if negative {
                return None;
            }
            let one = 1_000_000_000u128;
            let limits = [(11u32, 1u128), (14, 1_000_000), (17, 1_000)];
            for (i, (power, unit)) in limits.iter().enumerate() {
                if int < 10u128.pow(*power) * one {
                    if i == 0 {
                        return valid_time(int as i128);
                    }
                    let fraction = rest || int % one != 0;
                    return if fraction { None } else { valid_time((int / one * unit) as i128) };
                }
            }
            if rest || int % one != 0 { None } else { valid_time((int / one) as i128) }
        }
        Node::Text(text) => rfc3339(text),
        _ => None,
    }
}

/// RFC 3339 by walking the calendar day by day, year by year.
fn rfc3339(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if !text.is_ascii() || b.len() < 20 {
        return None;
    }
    let num = |from: usize, to: usize| {
        let t = text.get(from..to)?;
        if t.bytes().all(|b| b.is_ascii_digit()) { t.parse::<i64>().ok() } else { None }
    };
    let (year, month, day) = (num(0, 4)?, num(5, 7)?, num(8, 10)?);
    let (hour, minute, second) = (num(11, 13)?, num(14, 16)?, num(17, 19)?);
    if [b[4], b[7], b[13], b[16]] != *b"--::" || !matches!(b[10], b'T' | b't') {
        return None;
    }
    let rest = &text[19..];
    let (fraction, zone) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            if end == 0 || end > 9 {
                return None;
            }
            (&rest[..end], &rest[end..])
        }
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            if zone.len() != 6 || zone.as_bytes()[3] != b':' {
                return None;
            }
            let part = |t: &str| if t.bytes().all(|b| b.is_ascii_digit()) { t.parse::<i64>().ok() } else { None };
            let (h, m) = (part(&zone[1..3])?, part(&zone[4..6])?);
            if h > 23 || m > 59 {
                return None;
            }
            sign * (h * 3600 + m * 60)
        }
    };
    let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    let month_days =
        |y: i64, m: i64| [31, if leap(y) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][m as usize - 1];
    if !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 || !(1990..=2110).contains(&year) {
        return None;
    }
    let mut days = 0;
    for y in 1970..year {
        days += if leap(y) { 366 } else { 365 };
    }
    for m in 1..month {
        days += month_days(year, m);
    }
    let seconds = (days + day - 1) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    if second == 60 && seconds % 86_400 != 0 {
        return None;
    }
    let ns = format!("{fraction:0<9}").parse::<i128>().ok()?;
    valid_time(i128::from(seconds) * 1_000_000_000 + ns)
}

/// A lexical integer in a range.
fn integer(node: &Node, min: u64, max: u64) -> Option<u64> {
    let Node::Number(text) = node else { return None };
    let value = if text == "-0" { 0 } else { text.parse::<u64>().ok()? };
    (min..=max).contains(&value).then_some(value)
}

fn hex(node: &Node, digits: usize) -> bool {
    matches!(node, Node::Text(t) if t.len() == digits && t.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn one_of(node: &Node, words: &[&str]) -> Option<String> {
    match node {
        Node::Text(text) if words.contains(&text.as_str()) => Some(text.clone()),
        _ => None,
    }
}

/// What the contract says about `record`: the model's event, or the first reason.
pub fn decode(record: &[u8]) -> Result<Model, &'static str> {
    if record.len() > 65_536 {
        return Err("too_large");
    }
    if record.iter().all(|b| b" \t\r\n".contains(b)) {
        return Err("empty");
    }
    let text = std::str::from_utf8(record).map_err(|_| "not_utf8")?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| "not_json")?;
    let Node::Object(pairs) = node(raw).ok_or("not_json")? else { return Err("not_an_object") };
    let mut found = HashSet::new();
    if depth(text) > 32 {
        found.insert("too_deep");
    }
    let objects = ["actor", "source", "permission", "change"];
    let mut values: Vec<(&str, &str, &Node)> = Vec::new();
    for (key, value) in &pairs {
        let Some(key) = EVENT_KEYS.iter().find(|k| *k == key) else { continue };
        values.push(("", key, value));
        if !objects.contains(key) {
            continue;
        }
        let Node::Object(members) = value else { continue };
        for (name, member) in members {
            if let Some(name) = nested_keys(key).iter().find(|k| *k == name) {
                values.push((key, name, member));
            }
        }
    }
    let mut once = HashSet::new();
    if values.iter().any(|(object, key, _)| !once.insert((*object, *key))) {
        found.insert("duplicate_key");
    }
    for (object, key, value) in &values {
        if let Some(reject) = fault(object, key, value) {
            found.insert(reject);
        }
    }
    let get = |object: &str, key: &str| values.iter().rev().find(|(o, k, _)| (*o, *k) == (object, key)).map(|v| v.2);
    let kind = get("", "kind").and_then(|k| one_of(k, &["login", "token", "permission", "audit", "change"]));
    let require = |present: bool, reason: &'static str, found: &mut HashSet<&str>| {
        if !present {
            found.insert(reason);
        }
    };
    require(get("", "time").is_some(), "missing_time", &mut found);
    require(get("", "kind").is_some(), "missing_kind", &mut found);
    match kind.as_deref() {
        Some("audit") => require(get("", "queue").is_some(), "missing_queue", &mut found),
        Some("change") => require(get("change", "id").is_some(), "missing_change_id", &mut found),
        Some(_) => {
            require(get("", "tenant").is_some(), "missing_tenant", &mut found);
            require(get("", "outcome").is_some(), "missing_outcome", &mut found);
        }
        None => {}
    }
    if let Some(first) = ORDER.iter().find(|reason| found.contains(*reason)) {
        return Err(first);
    }
    Ok(build(kind.as_deref().unwrap_or_default(), &get))
}

const ORDER: [&str; 15] = [
    "too_deep",
    "duplicate_key",
    "unknown_version",
    "missing_time",
    "bad_time",
    "missing_kind",
    "unknown_kind",
    "missing_tenant",
    "bad_tenant",
    "missing_outcome",
    "bad_outcome",
    "bad_latency",
    "missing_queue",
    "missing_change_id",
    "bad_field",
];

/// What is wrong with one value, by itself.
fn fault(object: &str, key: &str, value: &Node) -> Option<&'static str> {
    let text = |max: usize, min: usize| matches!(value, Node::Text(t) if (min..=max).contains(&t.len()));
    let (good, reason) = match (object, key) {
        ("", "v") => (matches!(value, Node::Number(t) if t == "1"), "unknown_version"),
        ("", "time") => (time(value).is_some(), "bad_time"),
        ("", "kind") => (one_of(value, &["login", "token", "permission", "audit", "change"]).is_some(), "unknown_kind"),
        ("", "tenant") => (text(256, 1), "bad_tenant"),
        ("", "region") => (text(256, 1), "bad_field"),
        ("", "id") => (text(64, 0), "bad_field"),
        ("", "outcome") => (one_of(value, &["success", "failure", "challenge", "denied"]).is_some(), "bad_outcome"),
        ("", "latency_ms") => (matches!(value, Node::Null) || latency(value).is_some(), "bad_latency"),
        ("", "reason") => (matches!(value, Node::Null | Node::Text(_)), "bad_field"),
        ("", "count") => (integer(value, 1, 1_000_000).is_some(), "bad_field"),
        ("", "epoch" | "seq") => (integer(value, 0, i64::MAX as u64).is_some(), "bad_field"),
        ("source", "asn") => (integer(value, 0, u64::from(u32::MAX)).is_some(), "bad_field"),
        ("", "enqueued_time") => (time(value).is_some(), "bad_field"),
        ("", "trace_id") => (hex(value, 32), "bad_field"),
        ("", "span_id" | "parent_span_id") => (hex(value, 16), "bad_field"),
        ("", "hop") => (one_of(value, &["gateway", "evaluator", "enforcer"]).is_some(), "bad_field"),
        ("actor", "type") => (one_of(value, &["user", "service", "api_key", "system"]).is_some(), "bad_field"),
        ("", "actor" | "source" | "permission" | "change") => (matches!(value, Node::Object(_)), "bad_field"),
        _ => (text(usize::MAX, 0), "bad_field"),
    };
    (!good).then_some(reason)
}

fn latency(value: &Node) -> Option<u64> {
    let Node::Number(text) = value else { return None };
    let (negative, ns, rest) = scaled(text, 6);
    let ns = ns?;
    if (negative && (ns > 0 || rest)) || ns > 86_400_000_000_000 || (ns == 86_400_000_000_000 && rest) {
        return None;
    }
    Some(ns as u64)
}

fn build<'n>(kind: &str, get: &impl Fn(&str, &str) -> Option<&'n Node>) -> Model {
    let text = |object: &str, key: &str| match get(object, key) {
        Some(Node::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let ops: &[&str] = match kind {
        "login" => &["password", "mfa", "sso", "passkey", "api_key"],
        "token" => &["issue", "refresh", "exchange", "revoke", "introspect"],
        "permission" => &["assign", "remove", "check", "escalate"],
        "audit" => &["enqueue", "deliver"],
        _ => &["deploy", "config", "secret_rotation", "rollback", "drift", "confirm"],
    };
    let reasons = [
        "bad_credentials",
        "unknown_account",
        "mfa",
        "locked",
        "rate_limited",
        "policy",
        "expired",
        "token_reuse",
        "invalid_grant",
        "invalid_client",
        "upstream_error",
        "timeout",
    ];
    let other = if kind == "audit" { "deliver" } else { "other" };
    let applies = |object: &str, key: &str| match (object, key) {
        ("permission", _) | ("", "hop") => kind == "permission",
        ("change", _) => kind == "change",
        ("", "queue" | "producer") => kind == "audit",
        _ => true,
    };
    let number = |object: &str, key: &str| get(object, key).and_then(|n| integer(n, 0, u64::MAX));
    Model {
        time_ns: get("", "time").and_then(time).unwrap_or_default(),
        kind: kind.to_string(),
        op: text("", "op").filter(|op| ops.contains(&op.as_str())).unwrap_or(other.to_string()),
        count: number("", "count").unwrap_or(1),
        outcome: text("", "outcome"),
        reason: match text("", "reason") {
            None => "none".to_string(),
            Some(reason) if reasons.contains(&reason.as_str()) => reason,
            Some(_) => "other".to_string(),
        },
        latency_ns: get("", "latency_ms").and_then(latency),
        texts: TEXTS.iter().map(|(o, k)| (*k, text(o, k).filter(|_| applies(o, k)))).collect(),
        numbers: vec![
            ("asn", number("source", "asn")),
            ("epoch", number("", "epoch").filter(|_| kind == "audit")),
            ("seq", number("", "seq").filter(|_| kind == "audit")),
        ],
        enqueued_ns: get("", "enqueued_time").and_then(time).filter(|_| kind == "audit"),
    }
}
