//! The circuit breaker: a server that does not answer is left alone for a while.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::stats::BreakerState;

/// Calls that fail in a row before no more are made.
const FAILURES: u32 = 5;
/// How long no call is made then: twice as long each time that the next call fails too.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Breaker {
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    failures: u32,
    /// No call is made until then. The one after that is the probe.
    open_until: Option<Instant>,
    pause: Duration,
}

impl Breaker {
    /// Whether a call may be made; else how long none may be.
    pub(super) fn admits(&self) -> Result<(), Duration> {
        let now = self.now.lock();
        let left = now.open_until.map(|until| until.saturating_duration_since(Instant::now()));
        match left {
            Some(left) if !left.is_zero() => Err(left),
            _ => Ok(()),
        }
    }

    /// Whether calls had failed until now.
    pub(super) fn succeeded(&self) -> bool {
        std::mem::take(&mut *self.now.lock()).open_until.is_some()
    }

    /// How long no call is made now, if this is one too many.
    pub(super) fn failed(&self) -> Option<Duration> {
        let mut now = self.now.lock();
        now.failures = now.failures.saturating_add(1);
        if now.failures < FAILURES {
            return None;
        }
        now.pause = (now.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        now.open_until = Some(Instant::now() + now.pause);
        Some(now.pause)
    }

    pub(super) fn state(&self) -> BreakerState {
        let was_opened = self.now.lock().open_until.is_some();
        match self.admits() {
            Err(_) => BreakerState::Open,
            Ok(()) if was_opened => BreakerState::HalfOpen,
            Ok(()) => BreakerState::Closed,
        }
    }
}
