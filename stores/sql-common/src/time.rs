//! Times in columns: microseconds since the Unix epoch, by the server's clock.

use std::time::{Duration, Instant};

use onceonly::Timestamp;
use onceonly::authority::{AuthorityError, Result};

/// A span in microseconds. Rounded up, and one more because the time that it is added to was
/// rounded down: what ends then lives longer, not shorter.
#[must_use]
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX).saturating_add(1)
}

/// When something is over that begins now.
#[must_use]
pub fn until(now: i64, span: Duration) -> i64 {
    now.saturating_add(micros(span))
}

/// From a column.
#[must_use]
pub fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_unix_nanos(micros.saturating_mul(1_000))
}

/// For a column, rounded up: what is over then lives longer, not shorter.
#[must_use]
pub fn micros_of(time: Timestamp) -> i64 {
    let nanos = time.as_unix_nanos();
    nanos.div_euclid(1_000) + i64::from(nanos.rem_euclid(1_000) != 0)
}

/// A difference of two columns; not negative.
#[must_use]
pub fn span(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

/// A number for a column: databases have signed ones.
#[must_use]
pub fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// From a column.
#[must_use]
pub fn unsigned(column: i64) -> u64 {
    column.cast_unsigned()
}

/// Time until the deadline.
///
/// # Errors
/// It has passed, so nothing is sent.
pub fn remaining(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(AuthorityError::transient("the deadline had passed before anything was sent"));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_ends_are_rounded_up() {
        assert_eq!(micros(Duration::ZERO), 1);
        assert_eq!(micros(Duration::from_nanos(1)), 2);
        assert_eq!(micros(Duration::MAX), i64::MAX);
        assert_eq!(until(i64::MAX, Duration::from_secs(1)), i64::MAX);
        for (nanos, column) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (-1, 0), (-1_000, -1)] {
            assert_eq!(micros_of(Timestamp::from_unix_nanos(nanos)), column, "{nanos}");
        }
        assert_eq!(span(-5), Duration::ZERO);
    }
}
