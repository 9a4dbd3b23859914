//! Makes events of every kind and damages them: values of the wrong type, keys doubled, bytes flipped, text cut.

use fastrand::Rng;

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

const TIMES: &[&str] = &[
    r#""2026-03-14T09:20:00.123Z""#,
    r#""2026-03-14T10:20:00+01:00""#,
    "1773480000123",
    "1773480000",
    "1773480000.25",
    "1.77348e9",
    r#""2026-02-30T00:00:00Z""#,
    r#""2026-03-14T09:20:00.1234567891Z""#,
    r#""2026-03-14t09:20:60z""#,
    r#""2016-12-31T23:59:60Z""#,
    "99999999999",
    "1773480000000.5",
    "-1",
    "0",
    "null",
    r#""1999-12-31T23:59:59.999999999Z""#,
    r#""2100-01-01T00:00:00Z""#,
    "17734800001230000",
    "1e30",
    "true",
];
const TEXTS: &[&str] = &[
    r#""acme""#,
    r#""a\u0063me""#,
    r#""""#,
    r#""\ud83d\ude00""#,
    r#""üñï""#,
    r#""quote\" \\ \/""#,
    "null",
    "7",
    "{}",
    "[]",
    r#""\ud83d""#,
    r#""\udc00""#,
    r#""__x""#,
    r#""\n""#,
    "true",
];
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "1.0",
    "1e0",
    "14.8",
    "112.4",
    "0.0000001",
    "86400000",
    "86400000.0000001",
    "-0.1",
    "1e-400",
    "1e400",
    "000",
    "1.",
    ".5",
    "+1",
    "18446744073709551616",
    "9223372036854775807",
    "9223372036854775808",
    "1000000",
    "1000001",
    "4294967295",
    "4294967296",
    "null",
    r#""1""#,
    "3.0000000000000000000001",
    "8.64E+7",
];
const REASONS: &[&str] = &[r#""bad_credentials""#, r#""timeout""#, r#""none""#, r#""x""#, "null", "1", r#""other""#];
const OUTCOMES: &[&str] =
    &[r#""success""#, r#""failure""#, r#""challenge""#, r#""denied""#, r#""Success""#, "null", r#""f\u0061ilure""#];
const KINDS: &[&str] = &["login", "token", "permission", "audit", "change"];
const OPS: &[&str] = &[
    "password",
    "mfa",
    "sso",
    "passkey",
    "api_key",
    "issue",
    "refresh",
    "exchange",
    "revoke",
    "introspect",
    "assign",
    "remove",
    "check",
    "escalate",
    "enqueue",
    "deliver",
    "deploy",
    "config",
    "secret_rotation",
    "rollback",
    "drift",
    "confirm",
    "nothing",
    "other",
];
const JUNK: &[&str] = &[
    "{", "}", "[", "]", ",", ":", "\"", "\\", "null", "1", "-", "e", ".", "\\u00", " ", "\n", "\u{0}", "\u{1f}", "é",
    "\u{feff}", "[[", "{\"a\":",
];

/// A value for `key`: mostly right, sometimes not.
fn value(rng: &mut Rng, key: &str, kind: &str) -> String {
    let wild = rng.u8(..) < 8;
    let text = |rng: &mut Rng| pick(rng, if wild { TEXTS } else { &TEXTS[..2] }).to_string();
    match key {
        "time" | "enqueued_time" => pick(rng, if wild { TIMES } else { &TIMES[..6] }).to_string(),
        "kind" if wild => text(rng),
        "kind" => format!("\"{kind}\""),
        "op" if !wild => format!("\"{}\"", pick(rng, OPS)),
        "outcome" => pick(rng, if wild { OUTCOMES } else { &OUTCOMES[..4] }).to_string(),
        "reason" => pick(rng, if wild { REASONS } else { &REASONS[..5] }).to_string(),
        "v" => if wild { pick(rng, NUMBERS) } else { "1" }.to_string(),
        "count" | "epoch" | "seq" | "asn" if !wild => rng.u32(1..1000).to_string(),
        "latency_ms" if !wild => pick(rng, &["14.8", "0", "112.4", "null", "1e1", "3"]).to_string(),
        "latency_ms" | "count" | "epoch" | "seq" | "asn" => pick(rng, NUMBERS).to_string(),
        "trace_id" => format!("\"{:0w$x}\"", rng.u128(..), w = if wild { 31 } else { 32 }),
        "span_id" | "parent_span_id" => format!("\"{:0w$X}\"", rng.u64(..), w = if wild { 17 } else { 16 }),
        "hop" if !wild => format!("\"{}\"", pick(rng, &["gateway", "evaluator", "enforcer"])),
        "type" if !wild => format!("\"{}\"", pick(rng, &["user", "service", "api_key", "system"])),
        "tenant" | "region" | "id" if wild && rng.bool() => {
            format!("\"{}\"", "n".repeat(pick(rng, &["64", "65", "256", "257"]).parse().unwrap()))
        }
        "actor" if !wild => object(rng, &["id", "type", "extra"], kind),
        "source" if !wild => object(rng, &["ip", "asn", "ua"], kind),
        "permission" if !wild => object(rng, &["subject", "role", "resource"], kind),
        "change" if !wild => object(rng, &["id", "subject", "from", "to", "by", "approved_by"], kind),
        "extra" => format!("{{\"a\":[1,{{\"b\":{}}}]}}", text(rng)),
        _ => text(rng),
    }
}

fn blank(rng: &mut Rng) -> &'static str {
    if rng.u8(..) < 240 { "" } else { pick(rng, &[" ", "\n", "\t\r", "  "]) }
}

fn object(rng: &mut Rng, keys: &[&str], kind: &str) -> String {
    let mut keys: Vec<&str> = keys.iter().copied().filter(|_| rng.u8(..) < 200).collect();
    rng.shuffle(&mut keys);
    if rng.u8(..) < 3 && !keys.is_empty() {
        keys.push(keys[0]);
    }
    let members: Vec<String> = keys
        .iter()
        .map(|key| {
            let name = if rng.u8(..) < 4 { key.replacen('i', "\\u0069", 1) } else { key.to_string() };
            format!("{}\"{name}\"{}:{}{}", blank(rng), blank(rng), blank(rng), value(rng, key, kind))
        })
        .collect();
    format!("{{{}{}}}", members.join(","), blank(rng))
}

/// One event, or what is left of it.
pub fn record(rng: &mut Rng) -> Vec<u8> {
    let kind = pick(rng, KINDS);
    let mut keys = vec!["time", "kind", "tenant", "outcome"];
    match kind {
        "audit" => keys.extend(["queue", "producer", "epoch", "seq", "enqueued_time"]),
        "change" => keys.push("change"),
        "permission" => keys.extend(["permission", "hop"]),
        _ => {}
    }
    if rng.u8(..) < 10 {
        keys.remove(rng.usize(..keys.len()));
    }
    let optional = [
        "v",
        "id",
        "op",
        "count",
        "region",
        "service",
        "actor",
        "source",
        "client",
        "reason",
        "latency_ms",
        "trace_id",
        "span_id",
        "parent_span_id",
        "hop",
        "extra",
        "seq",
        "queue",
        "change",
        "permission",
    ];
    for key in optional {
        if rng.u8(..) < 100 && !keys.contains(&key) {
            keys.push(key);
        }
    }
    let full = object_of_all(rng, keys, kind);
    damage(rng, full.into_bytes())
}

fn object_of_all(rng: &mut Rng, mut keys: Vec<&str>, kind: &str) -> String {
    rng.shuffle(&mut keys);
    if rng.u8(..) < 3 {
        keys.push(keys[0]);
    }
    let members: Vec<String> =
        keys.iter().map(|k| format!("{}\"{k}\":{}{}", blank(rng), blank(rng), value(rng, k, kind))).collect();
    format!("{}{{{}}}{}", blank(rng), members.join(","), blank(rng))
}

fn damage(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    match rng.u8(..) {
        0..12 => {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        12..20 => bytes.truncate(rng.usize(..bytes.len())),
        20..36 => {
            let at = rng.usize(..=bytes.len());
            bytes.splice(at..at, pick(rng, JUNK).bytes());
        }
        36..40 => {
            let (a, b) = (rng.usize(..bytes.len()), rng.usize(..bytes.len()));
            bytes.drain(a.min(b)..a.max(b));
        }
        40 => {
            let deep = rng.usize(28..36);
            let nest = format!(",\"x\":{}{}}}", "[".repeat(deep), "]".repeat(deep));
            bytes.pop();
            bytes.extend(nest.bytes());
        }
        41 => bytes = format!("[{}]", String::from_utf8_lossy(&bytes)).into_bytes(),
        42 => bytes = b" \t ".to_vec(),
        _ => {}
    }
    bytes
}
