//! What a region, or a tenant with objectives of its own, counted over the last three days: slots of 10 s, of a minute and
//! of ten minutes. Panes do not reach that far, and do not keep who was slow.

use std::collections::BTreeMap;

use larum_aggregate::time::PANE_S;
use larum_view::Measure;
use larum_view::measure::MEASURES;
use serde::{Deserialize, Serialize};

use crate::catalogue::Objective;

/// A stretch of event time that a rule looks at, seconds.
pub type SpanS = u32;

/// Spans that rules may look at in regions.
pub const SPANS_S: [SpanS; 8] = [60, 300, 1_800, 3_600, 7_200, 21_600, 86_400, 259_200];

/// Slots of a width, and how far they reach back, seconds.
const TIERS: [(u32, u32); 3] = [(PANE_S, 300), (60, 3_600), (600, 259_200)];

/// Bytes that a history takes when it is full.
pub const HISTORY_BYTES: u64 = 160 << 10;

/// Events by measure.
type Counts = [u64; MEASURES];

/// Slots of one width by their number.
type Slots = BTreeMap<u32, Counts>;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    tiers: [Slots; TIERS.len()],
    /// Panes that windows have not come to, because they end before the tick.
    ahead: BTreeMap<u32, Counts>,
    /// When the first pane came that it counts, Unix seconds.
    began_s: Option<u32>,
}

fn add(to: &mut Counts, counts: &Counts) {
    to.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
}

/// First second of a span that ends with the pane of `end_s`: as windows, it moves in steps of its slots.
pub fn start_s(span_s: SpanS, end_s: u32) -> u32 {
    let exact = end_s.saturating_add(1).saturating_sub(span_s);
    exact - exact % tier_of(span_s).0
}

/// Width of the slots that a span is made of, and their place.
fn tier_of(span_s: SpanS) -> (u32, usize) {
    let at = TIERS.iter().position(|(_, reach_s)| span_s <= *reach_s).unwrap_or(TIERS.len() - 1);
    (TIERS[at].0, at)
}

impl History {
    /// Counts events of the pane that begins at `pane_s`, at a tick whose windows end with the pane of `end_s`.
    pub fn add(&mut self, pane_s: u32, counts: &Counts, end_s: u32) {
        if pane_s > end_s {
            return add(self.ahead.entry(pane_s).or_insert([0; MEASURES]), counts);
        }
        let began_s = self.began_s.get_or_insert(pane_s);
        *began_s = pane_s.min(*began_s);
        for ((width_s, reach_s), slots) in TIERS.into_iter().zip(&mut self.tiers) {
            if pane_s >= start_s(reach_s, end_s) {
                add(slots.entry(pane_s / width_s).or_insert([0; MEASURES]), counts);
            }
        }
    }

    /// Begins a tick whose windows end with the pane of `end_s`: forgets what no span holds any more.
    pub fn advance(&mut self, end_s: u32) {
        for ((width_s, reach_s), slots) in TIERS.into_iter().zip(&mut self.tiers) {
            let oldest = start_s(reach_s, end_s) / width_s;
            while slots.first_key_value().is_some_and(|(slot, _)| *slot < oldest) {
                slots.pop_first();
            }
        }
        while let Some((pane_s, counts)) = self.ahead.pop_first() {
            if pane_s > end_s {
                self.ahead.insert(pane_s, counts);
                break;
            }
            self.add(pane_s, &counts, end_s);
        }
    }

    /// How many times as fast as it lasts for thirty days the budget of an objective burns over a span, of which
    /// `covered_s` seconds were read. What Larum did not see counts as good.
    pub fn burn_rate(&self, of: &Objective, span_s: SpanS, end_s: u32, covered_s: f64) -> f64 {
        let (all, bad) = (self.sum(of.all, span_s, end_s), self.sum(of.bad, span_s, end_s));
        let share = if all == 0 { 0.0 } else { bad as f64 / all as f64 };
        let seen = self.seen(span_s, end_s).min(covered_s / f64::from(span_s));
        share * seen / (1.0 - of.target)
    }

    /// Share of a span that it was there for, 0 to 1: what was before is not known.
    fn seen(&self, span_s: SpanS, end_s: u32) -> f64 {
        let start_s = start_s(span_s, end_s).max(self.began_s.unwrap_or(end_s));
        (f64::from(end_s.saturating_add(1).saturating_sub(start_s)) / f64::from(span_s)).min(1.0)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.tiers.iter().all(BTreeMap::is_empty)
    }

    /// Events of a measure in a span that ends with the pane of `end_s`, the last one advanced to.
    pub fn sum(&self, measure: Measure, span_s: SpanS, end_s: u32) -> u64 {
        let (width_s, at) = tier_of(span_s);
        self.tiers[at].range(start_s(span_s, end_s) / width_s..).map(|(_, counts)| counts[measure as usize]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_equal_a_plain_sum_over_what_came() {
        for seed in 0..10 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut history, mut events) = (History::default(), Vec::new());
            let mut tick = 1_773_480_000 + rng.u32(..1_000);
            let delay_s = [0, 95][rng.usize(..2)];
            for _ in 0..400 {
                tick += [1, 7, 61, 700, 9_000][rng.usize(..5)];
                let end_s = tick - delay_s;
                history.advance(end_s);
                for _ in 0..8 {
                    let reach_s = [60, 4_000, 90_000, 300_000][rng.usize(..4)];
                    let age_s = rng.u32(..reach_s);
                    let pane_s = (tick - age_s) / PANE_S * PANE_S;
                    let mut counts = [0; MEASURES];
                    counts[Measure::Token as usize] = rng.u64(1..9);
                    history.add(pane_s, &counts, end_s);
                    events.push((pane_s, counts[Measure::Token as usize]));
                }
                for span_s in SPANS_S {
                    let within = start_s(span_s, end_s)..=end_s;
                    let want: u64 = events.iter().filter(|(pane_s, _)| within.contains(pane_s)).map(|(_, n)| n).sum();
                    assert_eq!(
                        history.sum(Measure::Token, span_s, end_s),
                        want,
                        "seed {seed} tick {tick} span {span_s}"
                    );
                }
            }
        }
    }

    #[test]
    fn spans_begin_where_windows_do() {
        for window in larum_aggregate::time::WINDOWS {
            for end_s in [1_773_480_000, 1_773_480_009, 1_773_481_234] {
                assert_eq!(start_s(window.span_s, end_s), window.start_s(end_s));
            }
        }
    }
}
