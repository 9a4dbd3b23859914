//! How a consumer group fares in a partition, judged by a few minutes of looks at it. Pure: told what time it is.

use std::collections::VecDeque;

use larum_aggregate::time::SECOND_NS;

/// The verdict; its number is what the signal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// Its lag is below the floor, or falls.
    Ok = 0,
    /// It commits, but its lag does not fall.
    Warn = 1,
    /// It does not get on though somebody is in the group.
    Stall = 2,
    /// It does not get on, and nobody is in the group.
    Stop = 3,
    /// Its committed offset went back, and is not back where it was.
    Rewind = 4,
}

/// What one look at the broker shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When it was taken, Unix ns.
    pub at_ns: i64,
    /// First offset not committed.
    pub next: i64,
    /// End of the log.
    pub end: i64,
    /// Timestamp of the oldest record not committed, Unix ns; `None` without one.
    pub oldest_ns: Option<i64>,
    /// Whether anybody is in the group, if known.
    pub has_members: Option<bool>,
}

impl Look {
    /// Records not committed.
    pub fn backlog(&self) -> i64 {
        // Where only control records are left, nothing is.
        if self.oldest_ns.is_some() { (self.end - self.next).max(0) } else { 0 }
    }

    /// Age of the oldest record not committed, ns; 0 without one.
    pub fn lag_ns(&self) -> i64 {
        self.oldest_ns.map_or(0, |oldest_ns| (self.at_ns - oldest_ns).max(0))
    }
}

/// So much of the past is compared to see whether the lag falls, ns.
const TREND_NS: i64 = 120 * SECOND_NS;
/// A step back is forgotten after so long, ns: the group was told to begin again, and that is its place now.
const REWIND_NS: i64 = 600 * SECOND_NS;

/// The looks at one partition.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The last few minutes, oldest first.
    looks: VecDeque<Look>,
    /// When the committed offset was first seen where it is.
    moved_ns: i64,
    /// When it went back, and from where.
    back: Option<(i64, i64)>,
}

impl Progress {
    /// Takes in a look, newer than the ones before.
    pub fn look(&mut self, look: Look) {
        match self.looks.back() {
            Some(last) if last.next == look.next => {}
            Some(last) if look.next < last.next => {
                let from = self.back.map_or(last.next, |(_, from)| from.max(last.next));
                (self.moved_ns, self.back) = (look.at_ns, Some((look.at_ns, from)));
            }
            _ => self.moved_ns = look.at_ns,
        }
        let is_over = |(at_ns, from): (i64, i64)| look.next >= from || look.at_ns - at_ns >= REWIND_NS;
        if self.back.is_some_and(is_over) {
            self.back = None;
        }
        self.looks.push_back(look);
        while self.looks.front().is_some_and(|first| look.at_ns - first.at_ns > TREND_NS) {
            self.looks.pop_front();
        }
    }

    /// The last look.
    pub fn last(&self) -> Option<&Look> {
        self.looks.back()
    }

    /// The verdict; `None` while too little is known: rather none than a wrong one. Lags below `floor_ns` are well.
    pub fn verdict(&self, floor_ns: i64) -> Option<GroupState> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let is_low = last.lag_ns() < floor_ns;
        if !is_low && last.at_ns - self.moved_ns >= floor_ns {
            return Some(if last.has_members == Some(true) { GroupState::Stall } else { GroupState::Stop });
        }
        if self.back.is_some() {
            return Some(GroupState::Rewind);
        }
        if is_low {
            return Some(GroupState::Ok);
        }
        // Commits come in steps: what counts is the lowest lag of each half.
        if last.at_ns - first.at_ns < TREND_NS / 2 {
            return None;
        }
        let middle_ns = i64::midpoint(first.at_ns, last.at_ns);
        let lowest = |early: bool| {
            let half = self.looks.iter().filter(|look| (look.at_ns < middle_ns) == early);
            half.map(Look::lag_ns).min().unwrap_or(0)
        };
        let (before_ns, since_ns) = (lowest(true), lowest(false));
        let falls = before_ns < floor_ns || since_ns < before_ns;
        Some(if falls { GroupState::Ok } else { GroupState::Warn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR_NS: i64 = 60 * SECOND_NS;
    const EVERY_S: i64 = 5;

    /// Looks every 5 s at a group that at second `s` stands at `at(s)` in a log of `rate` records a second that began at
    /// second 0; gives the verdicts.
    fn watch(
        seconds: std::ops::Range<i64>,
        rate: i64,
        members: bool,
        at: impl Fn(i64) -> i64,
    ) -> Vec<Option<GroupState>> {
        let mut progress = Progress::default();
        let look = |s: i64| {
            let (next, end) = (at(s), s * rate);
            let oldest_ns = (next < end).then(|| next * SECOND_NS / rate);
            let look = Look { at_ns: s * SECOND_NS, next, end, oldest_ns, has_members: Some(members) };
            progress.look(look);
            progress.verdict(FLOOR_NS)
        };
        seconds.step_by(EVERY_S as usize).map(look).collect()
    }

    #[test]
    fn burrow_745_one_old_zero_does_not_hide_a_stop() {
        // It is at the end of the log until second 100, and then stops for 20 minutes.
        let verdicts = watch(0..1300, 10, false, |s| s.min(100) * 10);
        let stop = verdicts.iter().position(|v| *v == Some(GroupState::Stop)).unwrap() as i64 * EVERY_S;
        assert_eq!(stop, 160);
        assert!(verdicts[(stop / EVERY_S) as usize..].iter().all(|v| *v == Some(GroupState::Stop)));
        let stalled = watch(0..1300, 10, true, |s| s.min(100) * 10);
        assert_eq!(stalled.last(), Some(&Some(GroupState::Stall)));
    }

    #[test]
    fn burrow_58_lag_grows_while_the_consumer_is_stopped() {
        let look = |s: i64| Look {
            at_ns: s * SECOND_NS,
            next: 5,
            end: 100,
            oldest_ns: Some(7 * SECOND_NS),
            has_members: Some(false),
        };
        assert_eq!([10, 100, 1000].map(|s| look(s).lag_ns() / SECOND_NS), [3, 93, 993]);
    }

    #[test]
    fn burrow_446_a_verdict_ends_with_its_cause() {
        // Stopped from second 100 to 400, then at the end of the log again.
        let verdicts = watch(0..500, 10, false, |s| if s < 400 { s.min(100) * 10 } else { s * 10 });
        assert_eq!(verdicts[399 / 5], Some(GroupState::Stop));
        assert!(verdicts[400 / 5..].iter().all(|v| *v == Some(GroupState::Ok)));
    }

    #[test]
    fn burrow_303_a_large_steady_lag_is_not_ok() {
        // 2,000 records a second, always 200,000 behind, in commits of 5,000.
        let verdicts = watch(200..600, 2_000, true, |s| (s - 100) * 2_000 / 5_000 * 5_000);
        assert_eq!(verdicts.last(), Some(&Some(GroupState::Warn)));
        // The same lag getting smaller is well.
        let verdicts = watch(200..600, 2_000, true, |s| (s - 100) * 2_000 + (s - 200) * 300);
        assert_eq!(verdicts.last(), Some(&Some(GroupState::Ok)));
    }

    #[test]
    fn burrow_223_a_small_steady_lag_is_no_warning() {
        let verdicts = watch(200..600, 10, true, |s| s * 10 - 200);
        assert!(verdicts.iter().all(|v| *v == Some(GroupState::Ok)));
    }

    #[test]
    fn a_step_back_shows_until_its_place_is_reached_again_or_is_the_place_now() {
        // At second 300 back by 2,000 records of 10 a second, then 50 a second until it is there again at 350.
        let again = |s: i64| if s < 300 { s * 10 } else { (1_000 + (s - 300) * 50).min(s * 10) };
        let verdicts = watch(200..400, 10, true, again);
        let at = |s: i64| verdicts[((s - 200) / EVERY_S) as usize];
        assert_eq!(
            (at(295), at(300), at(335)),
            (Some(GroupState::Ok), Some(GroupState::Rewind), Some(GroupState::Rewind))
        );
        assert_eq!(at(345), Some(GroupState::Ok));
        // A group that was told to begin again and does not get on is stopped.
        let verdicts = watch(200..400, 10, false, |s| if s < 300 { s * 10 } else { 0 });
        assert_eq!(verdicts.last(), Some(&Some(GroupState::Stop)));
        // One that stays behind on a quiet log is back at its place after ten minutes.
        let mut progress = Progress::default();
        for s in 0..200 {
            let (next, at_ns) = (if s < 10 { 50 } else { 20 }, s * 5 * SECOND_NS);
            progress.look(Look { at_ns, next, end: 50, oldest_ns: None, has_members: None });
        }
        assert_eq!(progress.verdict(FLOOR_NS), Some(GroupState::Ok));
    }

    #[test]
    fn kle_111_a_quiet_topic_has_no_lag() {
        let mut progress = Progress::default();
        for s in 0..500 {
            progress.look(Look { at_ns: s * SECOND_NS, next: 70, end: 70, oldest_ns: None, has_members: Some(true) });
            assert_eq!((progress.last().unwrap().backlog(), progress.last().unwrap().lag_ns()), (0, 0));
            assert_eq!(progress.verdict(FLOOR_NS), Some(GroupState::Ok));
        }
    }

    #[test]
    fn nothing_is_said_before_it_is_known() {
        // Seen for the first time far behind: stopped, or catching up?
        let verdicts = watch(1000..1100, 10, false, |_| 10);
        assert_eq!(verdicts[..12], [None; 12]);
        assert_eq!(verdicts[12], Some(GroupState::Stop));
    }
}
