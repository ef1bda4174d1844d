//! What a run counts, and how the counts are printed.

use std::time::{Duration, Instant};

use onceonly::{Stats, Verdict};
use serde_json::{Value, json};

use crate::timestamp;

/// Records by what was decided.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) new: u64,
    pub(crate) duplicate: u64,
    pub(crate) too_old: u64,
    /// Without the key or time field.
    pub(crate) missing: u64,
    pub(crate) bytes_read: u64,
    started: Instant,
}

impl Counts {
    pub(crate) fn start() -> Self {
        Counts {
            new: 0,
            duplicate: 0,
            too_old: 0,
            missing: 0,
            bytes_read: 0,
            started: Instant::now(),
        }
    }

    pub(crate) fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::New => self.new += 1,
            Verdict::Duplicate => self.duplicate += 1,
            Verdict::TooOld => self.too_old += 1,
        }
    }

    pub(crate) fn lines(&self) -> u64 {
        self.new + self.duplicate + self.too_old + self.missing
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The line that `--count` prints.
    pub(crate) fn line(&self) -> String {
        format!(
            "lines {} new {} duplicate {} too_old {} missing {}\n",
            self.lines(),
            self.new,
            self.duplicate,
            self.too_old,
            self.missing
        )
    }

    /// The object that `--stats json` prints.
    pub(crate) fn json(&self, bytes_written: u64, store: &Stats) -> Value {
        json!({
            "lines": self.lines(),
            "new": self.new,
            "duplicate": self.duplicate,
            "too_old": self.too_old,
            "missing": self.missing,
            "bytes_read": self.bytes_read,
            "bytes_written": bytes_written,
            "seconds": self.elapsed().as_secs_f64(),
            "store": store_json(store),
        })
    }
}

fn store_json(stats: &Stats) -> Value {
    let slices: Vec<Value> = stats
        .slices
        .iter()
        .map(|slice| {
            json!({
                "sequence": slice.sequence,
                "start": timestamp::show(slice.start),
                "end": timestamp::show(slice.end),
                "expires": timestamp::show(slice.expires),
                "sealed_keys": slice.sealed_keys,
                "sealed_parts": slice.sealed_parts,
                "complete": slice.complete,
            })
        })
        .collect();
    json!({
        "keys_live": stats.keys_live,
        "memory_bytes": stats.memory_bytes,
        "disk_bytes": stats.disk_bytes,
        "filter_negative": stats.filter_negative,
        "filter_positive": stats.filter_positive,
        "filter_false_positive": stats.filter_false_positive,
        "false_positive_rate": stats.false_positive_rate,
        "filter_fill": stats.filter_fill,
        "filter_capacity": stats.filter_capacity,
        "slices": slices,
        "recovery": {
            "created": stats.recovery.created,
            "clean_close": stats.recovery.clean_close,
            "rebooted": stats.recovery.rebooted,
            "replayed_keys": stats.recovery.replayed_keys,
            "replayed_claims": stats.recovery.replayed_claims,
            "filters_rebuilt": stats.recovery.filters_rebuilt,
            "set_aside": stats.recovery.set_aside,
            "damage": stats.recovery.damage,
            "close_error": stats.recovery.close_error,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_counts_once() {
        let mut counts = Counts::start();
        (counts.new, counts.duplicate, counts.too_old, counts.missing) = (4, 3, 2, 1);
        assert_eq!(counts.line(), "lines 10 new 4 duplicate 3 too_old 2 missing 1\n");
        assert_eq!(counts.json(7, &Stats::default())["lines"], 10);
    }
}
