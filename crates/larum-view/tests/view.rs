//! What a view says of its windows: span, completeness, being the present.

// Helpers of tests may fail loudly like tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use larum_aggregate::time::{SECOND_NS, WINDOWS};
use larum_aggregate::{Cover, Delta, Graces, PartCut, PartitionId, PartitionStart, SourceCut, SourceDef, SourceId};
use larum_view::{
    ClassicRead, Counted, Exemplars, Exposure, Family, HistogramRead, KeyView, Label, LabelSet, Reading, Shown, Signal,
    Sink, Value, View, Wanted,
};

const SOURCE: SourceId = SourceId(0);
const T: i64 = 1_773_480_000;

fn start(id: u32, cover: Cover) -> PartitionStart {
    PartitionStart {
        id: PartitionId(id),
        source: SOURCE,
        topic: "t".into(),
        topic_id: None,
        partition: id as i32,
        start: 5,
        origin: 5,
        cover,
        began_ns: 7,
    }
}

fn view(covers: &[Cover], delay_s: u32) -> View {
    let mut view = View::default();
    view.apply(Delta {
        new_sources: vec![SourceDef {
            id: SOURCE,
            name: "s".into(),
            delay_s,
            topics: vec!["t".into()],
            grace: Graces::default(),
        }],
        new_partitions: covers.iter().enumerate().map(|(id, cover)| start(id as u32, *cover)).collect(),
        ..Delta::default()
    });
    view
}

fn clock(clock_s: i64, left_out: Vec<PartitionId>) -> SourceCut {
    SourceCut { id: SOURCE, clock_ns: Some(clock_s * SECOND_NS), paced_ns: 0, arrived_ns: 0, left_out }
}

fn part(id: u32, first_append_s: i64, current_s: Option<i64>, damaged: bool) -> PartCut {
    PartCut {
        id: PartitionId(id),
        from: 5,
        next: 5,
        watermark_ns: None,
        first_append_ns: Some(first_append_s * SECOND_NS),
        current_ns: current_s.map(|s| s * SECOND_NS),
        damaged,
        marks: Vec::new(),
    }
}

fn incomplete(view: &View) -> Vec<bool> {
    let source = view.source(SOURCE).unwrap();
    WINDOWS.iter().map(|w| view.is_incomplete(source, *w)).collect()
}

fn spans(view: &View) -> Vec<f64> {
    let source = view.source(SOURCE).unwrap();
    WINDOWS.iter().map(|w| view.span_s(source, *w).unwrap()).collect()
}

#[test]
fn a_window_that_reaches_before_the_start_divides_by_what_is_covered() {
    let mut view = view(&[Cover::Since((T - 400) * SECOND_NS)], 0);
    view.apply(Delta { sources: vec![clock(T, vec![])], ..Delta::default() });
    // The last applied tick is T - 1, so windows end at T.
    assert_eq!(spans(&view), [60.0, 300.0, 400.0, 400.0, 400.0]);
    assert_eq!(incomplete(&view), [false, false, true, true, true]);
}

#[test]
fn the_feed_with_the_least_history_bounds_what_is_covered() {
    let mut view = view(&[Cover::Birth, Cover::FirstRecord, Cover::Always], 0);
    let parts = vec![part(0, T - 1000, None, false), part(1, T - 90, None, false)];
    view.apply(Delta { parts, sources: vec![clock(T, vec![])], ..Delta::default() });
    assert_eq!(spans(&view), [60.0, 90.0, 90.0, 90.0, 90.0]);
}

#[test]
fn a_topic_read_from_its_birth_is_covered_from_its_first_record() {
    let mut view = view(&[Cover::Birth, Cover::Birth], 0);
    let parts = vec![part(0, T - 100, None, false), part(1, T - 50, None, false)];
    view.apply(Delta { parts, sources: vec![clock(T, vec![])], ..Delta::default() });
    assert_eq!(spans(&view), [60.0, 100.0, 100.0, 100.0, 100.0]);
}

#[test]
fn a_delayed_feed_ends_its_windows_earlier() {
    let mut view = view(&[Cover::Since(0)], 600);
    view.apply(Delta { sources: vec![clock(T, vec![])], ..Delta::default() });
    assert_eq!(view.source(SOURCE).unwrap().window_end_s(), Some((T - 1 - 600) as u32));
}

#[test]
fn losses_and_those_left_out_mark_windows_incomplete() {
    let mut view = view(&[Cover::Since(0), Cover::Since(0)], 0);
    view.apply(Delta { sources: vec![clock(T, vec![])], ..Delta::default() });
    assert_eq!(incomplete(&view), [false; 5]);
    let parts = vec![part(0, 0, None, true)];
    view.apply(Delta { parts, sources: vec![clock(T + 200, vec![])], ..Delta::default() });
    // The loss lies at T: 200 s ago.
    assert_eq!(incomplete(&view), [false, true, true, true, true]);
    view.apply(Delta { sources: vec![clock(T + 40_000, vec![PartitionId(1)])], ..Delta::default() });
    assert_eq!(incomplete(&view), [true; 5]);
    view.apply(Delta { sources: vec![clock(T + 40_001, vec![])], ..Delta::default() });
    assert_eq!(incomplete(&view), [false; 5]);
}

#[test]
fn catching_up_is_judged_on_the_wall_clock() {
    let mut view = view(&[Cover::Since(0), Cover::Since(0)], 0);
    let catching_up = |view: &View, now_s: i64| view.is_catching_up(view.source(SOURCE).unwrap(), now_s * SECOND_NS);
    let parts = vec![part(0, 0, Some(T), false)];
    view.apply(Delta { parts, sources: vec![clock(T, vec![])], ..Delta::default() });
    assert!(catching_up(&view, T), "one partition was never current");
    view.apply(Delta { sources: vec![clock(T + 1, vec![PartitionId(1)])], ..Delta::default() });
    assert!(!catching_up(&view, T + 60), "one that is left out does not count");
    assert!(catching_up(&view, T + 61), "without commits the present goes away");
}

/// A topic taken out of the configuration kept its source catching up for good.
#[test]
fn a_topic_that_is_not_read_any_more_is_not_waited_for() {
    let mut view = view(&[Cover::Birth, Cover::Birth], 0);
    view.apply(Delta {
        new_partitions: vec![PartitionStart { topic: "old".into(), ..start(2, Cover::Birth) }],
        parts: vec![part(0, T, Some(T), false), part(1, T, Some(T), false), part(2, T, None, false)],
        sources: vec![clock(T, vec![PartitionId(2)])],
        ..Delta::default()
    });
    let source = view.source(SOURCE).unwrap();
    assert!(!view.is_catching_up(source, T * SECOND_NS));
    assert_eq!(incomplete(&view)[0], incomplete(&view)[1]);
    let def = SourceDef { topics: vec!["t".into(), "old".into()], ..source.def.clone() };
    view.apply(Delta { new_sources: vec![def], sources: vec![clock(T + 1, vec![])], ..Delta::default() });
    assert!(view.is_catching_up(view.source(SOURCE).unwrap(), T * SECOND_NS), "read again, it is waited for");
}

/// Samples as text: family, labels of scope and sample, value.
#[derive(Debug, Default, PartialEq)]
struct Samples {
    families: Vec<&'static str>,
    labels: Vec<String>,
    scope: String,
    seen: BTreeMap<(&'static str, String), String>,
}

impl Sink for Samples {
    fn family(&mut self, signal: &Signal) -> Family {
        self.families.push(signal.name);
        Family(self.families.len() - 1)
    }
    fn scope(&mut self, labels: &[Label<'_>], _: Option<i64>) {
        self.scope = format!("{labels:?}");
    }
    fn labels(&mut self, labels: &[Label<'_>]) -> LabelSet {
        self.labels.push(format!("{labels:?}"));
        LabelSet(self.labels.len() - 1)
    }
    fn sample_of(&mut self, family: Family, labels: LabelSet, value: Value) {
        let key = (self.families[family.0], format!("{}{}", self.scope, self.labels[labels.0]));
        assert_eq!(self.seen.insert(key, format!("{value:?}")), None);
    }
    fn histogram_of(&mut self, family: Family, labels: LabelSet, histogram: HistogramRead<'_>) {
        let key = (self.families[family.0], format!("{}{}", self.scope, self.labels[labels.0]));
        assert_eq!(self.seen.insert(key, format!("{histogram:?}")), None);
    }
    fn classic(&mut self, _: Family, _: &[Label<'_>], _: ClassicRead<'_>) {}
}

/// Whether one sink is shown all keys or each of several some of them, the samples are the same, and as many as there may be.
#[test]
fn parts_of_the_keys_are_all_of_them() {
    use larum_aggregate::{Entry, KeyDef, KeyId, NameDef, NameId, NameKind, seal};
    const KEYS: u32 = 400;
    let windows = [WINDOWS[1], WINDOWS[3]];
    let mut view = view(&[Cover::Birth], 0);
    let name = |id, kind| NameDef { id: NameId(id), kind, text: format!("n{id}") };
    let (region, component) = (NameId(90_000), NameId::NONE);
    let key = |id: u32| KeyDef { id: KeyId(id), source: SOURCE, tenant: NameId(1 + id), region, component };
    let names = (1..=KEYS).map(|id| name(id, NameKind::Tenant)).chain([name(90_000, NameKind::Region)]).collect();
    view.apply(Delta { names, keys: (0..KEYS).map(key).collect(), ..Delta::default() });
    let (mut alone, mut split, mut tick) = (Shown::default(), Shown::default(), T as u32);
    let mut exposure = Exposure::default();
    // Families are named though there is nothing to show: those that had something end.
    let mut nothing = [Samples::default()];
    let (exemplars, now_ns) = (Exemplars::default(), T * SECOND_NS);
    let helpers = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let reading = Reading {
        view: &View::default(),
        exemplars: &exemplars,
        now_ns,
        windows: &windows,
        exposure: &exposure,
        helpers: Some(&helpers),
    };
    reading.visit(&mut Shown::default(), &mut nothing);
    assert!(nothing[0].families.contains(&"larum_login_attempts_total"));
    for lines_max in [100_000, 100_000, 20_000, 20_000] {
        for round in 0..3 {
            tick += 10;
            let entry = |id: u32, code, ns| Entry::new(tick, Some(tick / 10), true, KeyId(id), code, 1).measured(ns, 5);
            let ids = (0..KEYS).filter(|id| (id + tick / 10) % 3 > 0);
            let mut entries: Vec<Entry> =
                ids.flat_map(|id| [3, 60].map(|code| entry(id, code, u64::from(id + round) * 1_000_000))).collect();
            let groups = seal(SOURCE, &mut entries);
            let (sources, now_s) = (vec![clock(i64::from(tick) + 1, vec![])], i64::from(tick));
            let parts = vec![part(0, now_s, Some(now_s), false)];
            view.apply(Delta { groups, sources, parts, ..Delta::default() });
            if round == 0 {
                exposure = Exposure::plan(&view, &windows, lines_max, &exposure);
            }
            let now_ns = i64::from(tick) * SECOND_NS;
            let reading = Reading {
                view: &view,
                exemplars: &exemplars,
                now_ns,
                windows: &windows,
                exposure: &exposure,
                helpers: Some(&helpers).filter(|_| round > 0),
            };
            let (mut one, mut four) = ([Samples::default()], std::array::from_fn::<_, 4, _>(|_| Samples::default()));
            reading.visit(&mut alone, &mut one);
            reading.visit(&mut split, &mut four);
            let parts = four.iter().filter(|sink| !sink.seen.is_empty()).count();
            // What is not known yet counts as little.
            let is_known = tick > T as u32 + 10;
            assert_eq!(parts > 1, is_known, "{lines_max} lines, round {round}");
            let mut all: BTreeMap<(&str, String), String> = BTreeMap::new();
            for sink in four {
                assert!(one[0].families.starts_with(&sink.families));
                for (key, value) in sink.seen {
                    assert_eq!(all.insert(key, value), None);
                }
            }
            assert_eq!(one[0].seen, all, "{lines_max} lines, round {round}");
            let has = |name: &str| one[0].seen.keys().any(|key| key.0 == name);
            assert!(has("larum_login_failure_ratio"));
            // Quantiles are told to the nanosecond.
            let mut quantiles = Vec::new();
            view.scan(&windows, |counted| {
                for (_, buckets, _) in counted.counts.windows().iter().flat_map(|window| window.histograms.iter()) {
                    let values = buckets.quantiles_seconds([0.5, 0.95, 0.99]).unwrap();
                    quantiles
                        .extend(values.map(|seconds| format!("{:?}", Value::TimeNs((seconds * 1e9).round() as u64))));
                }
            });
            let is_quantile = |key: &&(&str, String)| key.0 == "larum_token_latency_quantile_seconds";
            let shown: Vec<&String> = one[0].seen.keys().filter(is_quantile).map(|key| &one[0].seen[key]).collect();
            assert!(!shown.is_empty() && shown.iter().all(|value| quantiles.contains(value)), "{shown:?}");
            assert!(lines_max < 100_000 || shown.len() == quantiles.len());
        }
    }
}

/// What scrapes keep from one to the next is what a pass over everything finds, however much is wanted of each key.
fn shown_equals_what_is_read_anew(shown: &mut Shown, view: &View, rng: &mut fastrand::Rng, at: &str) {
    let all = [WINDOWS[1], WINDOWS[3], WINDOWS[4]];
    let windows = if rng.u8(..15) == 0 { &all[..0] } else { &all[..] };
    let levels = [Wanted::Nothing, Wanted::Counters, Wanted::Windows, Wanted::All];
    // Levels change now and then.
    let wanted: Vec<Wanted> =
        (0..KEYS_MAX).map(|_| levels[if rng.u8(..9) == 0 { rng.usize(..4) } else { 3 }]).collect();
    let wanted = |key: &KeyView| wanted[key.def.id.0 as usize];
    let (mut kept, mut fresh) = (Vec::new(), Vec::new());
    // Windows by code are kept elsewhere, see the test of sums.
    let of = |counted: &Counted<'_>| {
        let of_windows: Vec<_> = counted.counts.windows().iter().map(|window| window.histograms.clone()).collect();
        (
            counted.key.def.id,
            counted.counts.codes().collect::<Vec<_>>(),
            counted.counts.histograms().clone(),
            of_windows,
        )
    };
    shown.visit(view, windows, wanted, |counted| kept.push(of(counted)));
    view.scan_some(windows, wanted, |counted| fresh.push(of(counted)));
    assert_eq!(kept, fresh, "{at}");
}

/// Keys of the test below.
const KEYS_MAX: u32 = 12;

/// What rules look at is kept from tick to tick, and what scrapes show from one to the next; both stay what the panes hold
/// when a source's delay is raised or lowered, when the clock jumps, when keys come and go and events come late.
#[test]
fn sums_follow_the_panes_when_the_delay_changes_and_keys_come_and_go() {
    use larum_aggregate::{Entry, KeyDef, KeyId, NameDef, NameId, NameKind, seal};
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut view = view(&[Cover::Birth], 0);
        let name = |id, kind| NameDef { id: NameId(id), kind, text: format!("n{id}") };
        let key = |id: u32| KeyDef {
            id: KeyId(id),
            source: SOURCE,
            tenant: NameId(1 + id),
            region: NameId(90),
            component: NameId::NONE,
        };
        let names = (1..=KEYS_MAX).map(|id| name(id, NameKind::Tenant)).chain([name(90, NameKind::Region)]).collect();
        view.apply(Delta { names, keys: (0..3).map(key).collect(), ..Delta::default() });
        let (mut tick, mut shown, mut rare) = (T as u32, Shown::default(), Shown::default());
        let mut live: Vec<u32> = (0..3).collect();
        // Ids are given in order and come in nearly any: what other workers found meanwhile comes with their own Deltas.
        let mut coming: Vec<u32> = (3..KEYS_MAX).rev().collect();
        coming.chunks_mut(8).for_each(|ids| rng.shuffle(ids));
        for round in 0..200 {
            let at = format!("seed {seed} round {round}");
            tick += [1, 1, 9, 70, 4_000][rng.usize(..5)];
            let mut entries: Vec<Entry> = (0..rng.usize(..9))
                .map(|_| {
                    let reach_s = [400, 400, 30_000][rng.usize(..3)];
                    let pane = (tick - rng.u32(..reach_s)) / 10;
                    let id = KeyId(live[rng.usize(..live.len())]);
                    // Logins, tokens of two ops, some of them not measured.
                    let entry = Entry::new(tick, Some(pane), true, id, [3, 7, 60, 61, 90][rng.usize(..5)], 1);
                    if rng.u8(..5) == 0 { entry } else { entry.measured(rng.u64(..4) * 50_000_000, 5) }
                })
                .collect();
            let mut delta = Delta {
                groups: seal(SOURCE, &mut entries),
                sources: vec![clock(i64::from(tick) + 1, vec![])],
                ..Delta::default()
            };
            if !coming.is_empty() && rng.u8(..12) == 0 {
                let new = coming.split_off(coming.len().saturating_sub(rng.usize(1..4)));
                live.extend(&new);
                // Told twice by two workers.
                delta.keys = new.iter().chain(&new[..1]).chain(&live[..1]).copied().map(key).collect();
            }
            if live.len() > 3 && rng.u8(..30) == 0 {
                // Of those that this Delta does not count.
                let gone = KeyId(live.remove(rng.usize(..live.len())));
                view.apply(Delta { retired_keys: vec![gone], ..Delta::default() });
                delta.groups.clear();
            }
            if round % 40 == 39 {
                let delay_s = [0, 95, 600, 7_200][rng.usize(..4)];
                let topics = vec!["t".into()];
                let grace = Graces::default();
                delta.new_sources = vec![SourceDef { id: SOURCE, name: "s".into(), delay_s, topics, grace }];
                if rng.bool() {
                    // Defined anew, and looked at before there is a tick.
                    let new_sources = std::mem::take(&mut delta.new_sources);
                    view.apply(Delta { new_sources, ..Delta::default() });
                    shown = if rng.bool() { Shown::default() } else { shown };
                    shown_equals_what_is_read_anew(&mut shown, &view, &mut rng, &at);
                }
            }
            view.apply(delta);
            assert!(view.keys().is_sorted_by(|a, b| a.def.id < b.def.id), "{at}: each key once, by id");
            if rng.u8(..3) > 0 {
                shown_equals_what_is_read_anew(&mut shown, &view, &mut rng, &at);
            }
            if rng.u8(..25) == 0 {
                shown_equals_what_is_read_anew(&mut rare, &view, &mut rng, &at);
            }
            for (key, kept, fresh) in view.told_twice(SOURCE) {
                assert_eq!(
                    kept,
                    fresh,
                    "seed {seed} round {round} key {key} delay {}",
                    view.source(SOURCE).unwrap().def.delay_s
                );
            }
        }
    }
}
