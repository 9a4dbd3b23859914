//! The one file that reads clocks; everything else is told what time it is.
#![allow(clippy::disallowed_methods)]

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall clock at the start of the process, and the steady clock at that moment.
static START: LazyLock<(i64, Instant)> = LazyLock::new(|| {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX), Instant::now())
});

/// Unix time in ns: the wall clock at the start of the process, carried on by the steady clock, so that it never jumps
/// when somebody sets the wall clock.
pub fn now_ns() -> i64 {
    let (wall_ns, steady) = *START;
    wall_ns + i64::try_from(steady.elapsed().as_nanos()).unwrap_or(i64::MAX / 2)
}
