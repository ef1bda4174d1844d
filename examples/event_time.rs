//! Event time: the window follows the timestamps of the messages, not the clock.
//!
//! `cargo run --example event_time`

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use onceonly::{Dedup, Error as StoreError, Timestamp};

const MINUTE: i64 = 60_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    let dedup = Dedup::builder().window(Duration::from_secs(3600)).event_time(true).in_memory()?;

    // A recording of 2026-01-01, played at whatever speed.
    let midnight = 1_767_225_600_000;
    let events = [
        ("a", 0, "the first event"),
        ("b", 30, "half an hour later"),
        ("b", 31, "seen a minute ago"),
        ("c", 10, "late, but within the window"),
        ("c", 40, "seen, in a slice of its own"),
        ("d", 90, "the window moves on"),
        ("a", 91, "its first time is more than a window ago"),
        ("e", 20, "older than the window: nothing is known, nothing is marked"),
    ];
    for (key, minute, what) in events {
        let time = Timestamp::from_unix_millis(midnight + minute * MINUTE);
        let verdict = format!("{:?}", dedup.observe_at(key, time)?);
        writeln!(out, "{key} at minute {minute:>2}: {verdict:<9}  {what}")?;
    }

    // One wrong clock must not empty the window for all others.
    let far_ahead = SystemTime::now() + Duration::from_secs(24 * 3600);
    match dedup.observe_at("f", far_ahead) {
        Err(error @ StoreError::TimestampAhead { .. }) => writeln!(out, "f: {error}")?,
        other => writeln!(out, "f: unexpected: {other:?}")?,
    }
    writeln!(out, "vouches for everything since {}", dedup.guaranteed_since())?;
    Ok(())
}
