//! Panes, ticks and sliding windows: the one place of time arithmetic. All times are Unix, event time unless said.

/// Nanoseconds in a second.
pub const SECOND_NS: i64 = 1_000_000_000;
/// Width of a pane, seconds.
pub const PANE_S: u32 = 10;

/// Number of the pane that holds `time_ns` (times before 1970 count as 1970, far beyond 2100 as the last pane).
#[inline]
pub fn pane_of(time_ns: i64) -> u32 {
    second_of(time_ns) / PANE_S
}

/// The second that holds `time_ns`; as a watermark's second it is the tick of a record.
#[inline]
pub fn second_of(time_ns: i64) -> u32 {
    (time_ns.max(0) / SECOND_NS).min(i64::from(u32::MAX)) as u32
}

/// A sliding window of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// Width, seconds.
    pub span_s: u32,
}

/// The windows that are always kept: 1 m, 5 m, 30 m, 1 h, 6 h.
pub const WINDOWS: [Window; 5] = [
    Window { span_s: 60 },
    Window { span_s: 300 },
    Window { span_s: 1_800 },
    Window { span_s: 3_600 },
    Window { span_s: 21_600 },
];

/// The longest window, seconds.
pub const LONGEST_WINDOW_S: u32 = WINDOWS[WINDOWS.len() - 1].span_s;
/// Windows up to this width keep histograms, seconds.
pub const HISTOGRAM_WINDOW_S: u32 = 3_600;
/// The longest window that tells accounts and sources apart: up to this width they do.
pub const DISTINCT_WINDOW: Window = WINDOWS[1];

impl Window {
    /// Steps in which the window's start moves: 10 s up to 5 m, 1 m up to 1 h, 10 m above.
    pub const fn granularity_s(self) -> u32 {
        match self.span_s {
            0..=300 => PANE_S,
            301..=3_600 => 60,
            _ => 600,
        }
    }

    /// First second that the window holds at tick `t`: `t + 1 s - span`, rounded down to the granularity.
    pub const fn start_s(self, tick: u32) -> u32 {
        let exact = (tick.saturating_add(1)).saturating_sub(self.span_s);
        exact - exact % self.granularity_s()
    }

    /// The window's name in labels: `5m`, `1h`.
    pub fn name(self) -> String {
        match self.span_s {
            s if s % 86_400 == 0 => format!("{}d", s / 86_400),
            s if s % 3_600 == 0 => format!("{}h", s / 3_600),
            s if s % 60 == 0 => format!("{}m", s / 60),
            s => format!("{s}s"),
        }
    }
}

/// The oldest pane that any window can hold at tick `t` or later, for a source whose windows end `delay_s` before the
/// tick.
#[inline]
pub fn oldest_pane(tick: u32, delay_s: u32) -> u32 {
    Window { span_s: LONGEST_WINDOW_S }.start_s(tick.saturating_sub(delay_s)) / PANE_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_round_their_start_down() {
        let w = |s| Window { span_s: s };
        assert_eq!(w(60).start_s(1_000_004), 999_940);
        assert_eq!(w(300).start_s(1_000_009), 999_710);
        assert_eq!(w(3_600).start_s(1_000_009), 996_360);
        assert_eq!(w(21_600).start_s(1_000_009), 978_000);
        assert_eq!(w(60).start_s(10), 0);
    }

    #[test]
    fn names_are_short() {
        assert_eq!(WINDOWS.map(Window::name), ["1m", "5m", "30m", "1h", "6h"]);
    }

    #[test]
    fn panes_of_odd_times() {
        assert_eq!(pane_of(-5), 0);
        assert_eq!(pane_of(i64::MAX), u32::MAX / PANE_S);
        assert_eq!(pane_of(19_999_999_999), 1);
    }
}
