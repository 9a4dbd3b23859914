//! The strict reader against a serde model of the contract: same verdict, same reason, same fields on every input.
// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod model;
mod mutate;

use larum_event::{AuthEvent, Decoder, Kind, Limits, Records, Reject};
use model::Model;

/// Brings a decoded event into the model's shape.
fn shape(e: &AuthEvent<'_>) -> Model {
    let own = |t: Option<&str>| t.map(str::to_string);
    let permission = e.permission().unwrap_or_default();
    let audit = e.audit().unwrap_or_default();
    let change = e.change().unwrap_or_default();
    let some = |kind: Kind, text: &str| (e.kind() == kind).then(|| text.to_string());
    Model {
        time_ns: e.time_ns(),
        kind: e.kind().as_str().to_string(),
        op: e.op().as_str().to_string(),
        count: u64::from(e.count()),
        outcome: e.outcome().map(|o| o.as_str().to_string()),
        reason: e.reason().as_str().to_string(),
        latency_ns: e.latency_ns(),
        texts: vec![
            ("id", own(e.id())),
            ("tenant", (!e.tenant().is_empty()).then(|| e.tenant().to_string())),
            ("region", own(e.region())),
            ("service", own(e.service())),
            ("client", own(e.client())),
            ("queue", some(Kind::Audit, audit.queue)),
            ("producer", own(audit.producer)),
            ("id", own(e.actor_id())),
            ("type", e.actor_type().map(|t| t.as_str().to_string())),
            ("ip", own(e.source_ip())),
            ("ua", own(e.source_ua())),
            ("subject", own(permission.subject)),
            ("role", own(permission.role)),
            ("resource", own(permission.resource)),
            ("id", some(Kind::Change, change.id)),
            ("subject", own(change.subject)),
            ("from", own(change.from)),
            ("to", own(change.to)),
            ("by", own(change.by)),
            ("approved_by", own(change.approved_by)),
            ("hop", e.hop().map(|hop| hop.as_str().to_string())),
        ],
        numbers: vec![
            ("asn", e.source_asn().map(u64::from)),
            ("epoch", e.audit().map(|a| a.epoch).filter(|_| e.audit().is_some_and(|a| a.epoch != 0))),
            ("seq", audit.seq),
        ],
        enqueued_ns: audit.enqueued_time_ns,
    }
}

fn same(decoder: &mut Decoder, record: &[u8]) -> Result<Option<Reject>, String> {
    let want = model::decode(record).map(|mut m| {
        // An epoch of 0 and an absent one are the same.
        m.numbers[1].1 = m.numbers[1].1.filter(|e| *e != 0);
        m
    });
    let got = decoder.decode(record).map(|e| shape(&e));
    match (&want, &got) {
        (Ok(want), Ok(got)) if want == got => Ok(None),
        (Err(want), Err(got)) if *want == got.as_str() => Ok(Some(*got)),
        _ => Err(format!("{}\nmodel  {want:?}\nreader {got:?}", String::from_utf8_lossy(record))),
    }
}

/// At least 100,000 mutated events per run; `LARUM_SEED` repeats one.
#[test]
fn agrees_with_the_model_on_mutated_events() {
    let seed = std::env::var("LARUM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("LARUM_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut decoder = Decoder::new(Limits::default());
    let mut verdicts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..120_000 {
        let record = mutate::record(&mut rng);
        let verdict = same(&mut decoder, &record).unwrap_or_else(|e| panic!("LARUM_SEED={seed}\n{e}"));
        *verdicts.entry(verdict.map_or("ok".into(), |r| r.to_string())).or_default() += 1;
    }
    println!("{verdicts:?}");
    // The mutations reach both verdicts and every reason but the size limit, else the test proves little.
    for reason in Reject::ALL.iter().filter(|r| !matches!(r, Reject::TooLarge)) {
        assert!(verdicts.contains_key(reason.as_str()), "no mutated event was refused as {reason}");
    }
    assert!(verdicts["ok"] > 20_000, "{verdicts:?}");
}

#[test]
fn agrees_on_hand_picked_borders() {
    let mut decoder = Decoder::new(Limits::default());
    let event =
        |extra: &str| format!(r#"{{"time":1773480000,"kind":"login","tenant":"acme","outcome":"success"{extra}}}"#);
    let nest = |n: usize| format!(r#","x":{}{}"#, "[".repeat(n), "]".repeat(n));
    let mut records: Vec<String> = [
        "",
        ",",
        r#","latency_ms":1e1"#,
        r#","latency_ms":-0"#,
        r#","latency_ms":86400000.0"#,
        r#","v":1"#,
        r#","v":1.0"#,
        r#","v":null"#,
        r#","reason":"none""#,
        r#","reason":null"#,
        r#","x":1e999"#,
        r#","x":01"#,
        r#","x":"\ud800""#,
        r#","x":"\ud83d\ude00""#,
        r#","\u0074ime":1773480000"#,
        r#","\u0076":2"#,
        r#","region":"""#,
        r#","actor":{"id":"a","id":"b"}"#,
        r#","actor":{"x":1,"x":2}"#,
        r#","change":{"id":7}"#,
        r#","hop":"nowhere""#,
        r#","count":0"#,
        r#","count":1000000"#,
        r#","count":1000001"#,
        r#","seq":-1"#,
        r#","trace_id":"4BF92f3577b34da6a3ce929d0e0e4736""#,
        ",\"x\":\"\u{1}\"",
        ",\"x\":\"\u{7f}\"",
        "}",
    ]
    .iter()
    .map(|extra| event(extra))
    .collect();
    records.extend([event(&nest(31)), event(&nest(32)), event(&nest(20_000)), format!("[{}]", event(""))]);
    records.extend([" ".to_string(), "null".into(), "{}".into(), "\u{feff}{}".into(), "{}{}".into(), "nul".into()]);
    records.push(format!("{}{}", event(""), " ".repeat(65_536)));
    let big_stack = std::thread::Builder::new().stack_size(256 << 20).spawn(move || {
        for record in &records {
            same(&mut decoder, record.as_bytes()).unwrap();
        }
        same(&mut decoder, b"{\"time\":\xff}").unwrap();
    });
    big_stack.unwrap().join().unwrap();
}

#[test]
fn every_example_of_the_contract_decodes() {
    let mut decoder = Decoder::new(Limits::default());
    for line in include_str!("examples.jsonl").lines() {
        let event = decoder.decode(line.as_bytes()).unwrap();
        assert!(event.region().is_some());
        assert_eq!(same(&mut Decoder::default(), line.as_bytes()), Ok(None));
    }
}

#[test]
fn several_events_in_a_record_are_taken_or_refused_whole() {
    let mut decoder = Decoder::new(Limits::default());
    let good = r#"{"time":1773480000,"kind":"login","tenant":"t","outcome":"success"}"#;
    let bad = r#"{"time":1,"kind":"login","tenant":"t","outcome":"success"}"#;
    let mut run = |record: String, records| decoder.decode_each(record.as_bytes(), records, |_| {});
    assert_eq!(run(format!(" [{good} , {good}] "), Records::Array), Ok(2));
    assert_eq!(run(format!("[{good},{bad},{{}}]"), Records::Array), Err(Reject::BadTime));
    assert_eq!(run(format!("[{bad},{good}"), Records::Array), Err(Reject::NotJson));
    assert_eq!(run(format!("[{good},]"), Records::Array), Err(Reject::NotJson));
    assert_eq!(run("[]".into(), Records::Array), Err(Reject::Empty));
    assert_eq!(run("[1]".into(), Records::Array), Err(Reject::NotAnObject));
    assert_eq!(run(good.into(), Records::Array), Err(Reject::NotAnObject));
    assert_eq!(run(format!("{good}\n\r\n {good}\n"), Records::Lines), Ok(2));
    assert_eq!(run(format!("{good}\n{bad}\nx"), Records::Lines), Err(Reject::BadTime));
    assert_eq!(run("\n\n".into(), Records::Lines), Err(Reject::Empty));
}

/// What was learnt from one record may never change what is read of another. Every byte of every example is changed,
/// doubled or left out, and the decoder that has just learnt the example, and then the damaged record, must agree with
/// the model on both.
#[test]
fn a_damaged_record_neither_profits_from_a_layout_nor_poisons_it() {
    let mut decoder = Decoder::new(Limits::default());
    let blanks = |line: &str| line.replace(':', " : ").replace(",\"", " ,\n \"").replace('}', " }");
    let examples = include_str!("examples.jsonl").lines();
    for example in examples.flat_map(|line| [line.to_string(), blanks(line)]) {
        let example = example.as_bytes();
        for at in 0..example.len() {
            let (before, after) = example.split_at(at);
            let changed = |to: &[u8]| [before, to, &after[1..]].concat();
            let damaged = [changed(b""), changed(b" "), changed(b"\""), changed(b"}"), changed(b"x"), changed(b"null")];
            let doubled = [before, &after[..1], after].concat();
            for record in damaged.iter().chain([&doubled]) {
                same(&mut decoder, example).unwrap();
                same(&mut decoder, record).unwrap();
            }
        }
    }
}

#[test]
fn a_key_given_twice_is_refused_however_often_its_layout_was_seen() {
    let mut decoder = Decoder::new(Limits::default());
    let event = |more: &str| format!(r#"{{"time":1773480000,"kind":"login","tenant":"t","outcome":"success"{more}}}"#);
    for _ in 0..3 {
        for more in [
            r#","time":1773480001"#,
            r#","actor":{"id":"a"},"actor":{"id":"b"}"#,
            r#","actor":{},"actor":{}"#,
            r#","actor":null,"actor":{"id":"a"}"#,
            r#","actor":{"id":"a","type":"user","id":"b"}"#,
        ] {
            assert_eq!(decoder.decode(event(more).as_bytes()).err(), Some(Reject::DuplicateKey), "{more}");
        }
        assert!(decoder.decode(event(r#","actor":{},"source":{}"#).as_bytes()).is_ok());
        assert!(decoder.decode(event(r#","x":1,"x":{"time":2}"#).as_bytes()).is_ok());
    }
}
