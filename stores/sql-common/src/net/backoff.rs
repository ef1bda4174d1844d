//! How long to wait before something is tried once more.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// Pauses between attempts, each twice as long as the one before.
#[derive(Debug)]
pub struct Backoff {
    deadline: Instant,
    pause: Duration,
}

impl Backoff {
    /// Attempts up to the deadline.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        Backoff { deadline, pause: FIRST }
    }

    /// Waits; false when there is no time for another attempt.
    #[must_use]
    pub fn wait(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left <= self.pause {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
        true
    }
}
