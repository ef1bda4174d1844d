//! What a configuration will take, before anything is written.

use std::fmt;
use std::time::Duration;

use crate::config::{Builder, Config, Durability};
use crate::error::Result;
use crate::exact::run;
use crate::filter::{BLOCK, Columns, sizing};
use crate::format::PAGE;
use crate::journal;

/// Memory, disk and files of a configuration. With `max_keys` these are bounds for that many live
/// keys; without it they are for the expected keys, and every further million costs what
/// `memory_per_further_million` and `disk_per_further_million` say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Resident bytes: filter, index of unsealed records, unsealed records.
    pub memory_bytes: u64,
    /// Bytes of all files, the greatest part written a second time while it is merged.
    pub disk_bytes: u64,
    /// Number of files, at most.
    pub files: u64,
    /// Further memory for each million of live keys.
    pub memory_per_further_million: u64,
    /// Further disk for each million of live keys.
    pub disk_per_further_million: u64,
    /// Number of locks, [`Builder::shards`].
    pub shards: usize,
    /// Bytes of the filter.
    pub filter_bytes: u64,
    /// Bits of the filter for each expected key.
    pub filter_bits_per_key: f64,
    /// The filter's computed rate of false positives at the expected number of keys.
    pub expected_false_positive_rate: f64,
    /// Span of one slice.
    pub slice: Duration,
    /// How long a key is remembered at most.
    pub max_age: Duration,
}

/// Sizes that engine and plan have to agree on.
pub(crate) struct Sizes {
    /// Records of one journal segment.
    pub(crate) segment_keys: u64,
    pub(crate) segment_chunks: u32,
    /// Segments that are made ready in advance, at most.
    pub(crate) most_spares: usize,
    /// Records of one shard in a segment, about.
    pub(crate) index_records: usize,
    /// A log, of which there are up to [`LOGS`].
    pub(crate) log_bytes: u64,
}

/// Sealed parts of one slice before they are merged.
pub(crate) const MERGE_AT: usize = 8;
/// Segments hold this part of the expected keys, so that a slice has a few sealed parts.
const SEGMENTS_PER_WINDOW: u64 = 48;
/// Segments at a time beside those that are ready: one being filled, and some waiting to be sealed. One
/// of those that are ready is in memory, the others only on the disk.
const SEGMENTS: u64 = 5;
/// Segments that are ready, at most: several small ones, which are filled faster than files are made.
/// Fewer where a store is to stay below 1 MiB, one where it is large.
const MOST_SPARES: usize = 8;
const FEW_SPARES: usize = 2;
const HUGE_PAGE: u64 = 2 << 20;
/// Logs at a time: one being written, one ready, and those whose records are being sealed.
const LOGS: u64 = 5;
const MIN_LOG_BYTES: u64 = 256 << 10;
const MIN_SEGMENT_KEYS: u64 = 2_048;
const MAX_SEGMENT_KEYS: u64 = 1 << 21;

impl Sizes {
    /// Those of a store that holds about `keys` keys; never for more than its limit allows.
    pub(crate) fn of(config: &Config, keys: u64) -> Self {
        let shards = 1_usize << config.shard_bits;
        let most = config.max_keys.map_or(u64::MAX, |max| max.max(config.expected_keys));
        let segment_keys =
            (keys.min(most) / SEGMENTS_PER_WINDOW).clamp(MIN_SEGMENT_KEYS, MAX_SEGMENT_KEYS);
        let mut segment_chunks = journal::segment_chunks(segment_keys, shards);
        let mut segment_bytes = (u64::from(segment_chunks) + 1) * PAGE as u64;
        if segment_bytes > HUGE_PAGE {
            // Whole huge pages, where that adds little.
            segment_bytes = segment_bytes.next_multiple_of(HUGE_PAGE);
            segment_chunks = (segment_bytes / PAGE as u64 - 1) as u32;
            segment_chunks = segment_chunks.min(journal::MAX_CHUNKS);
        }
        let most_spares = match segment_bytes {
            HUGE_PAGE.. => 1,
            _ if segment_keys < 4 * MIN_SEGMENT_KEYS => FEW_SPARES,
            _ => MOST_SPARES,
        };
        Sizes {
            segment_keys,
            segment_chunks,
            most_spares,
            index_records: (segment_keys as usize / shards).max(64),
            log_bytes: match config.durability {
                // Only what is forgotten is logged.
                Durability::Process => MIN_LOG_BYTES,
                // A segment's records, and what the blocks take beside them.
                Durability::Interval(_) | Durability::Sync => segment_bytes + MIN_LOG_BYTES,
            },
        }
    }
}

/// Blocks of the filter of one shard that is to hold `keys` of the window.
pub(crate) fn shard_blocks(config: &Config, keys_of_store: u64) -> u32 {
    let shards = 1_u64 << config.shard_bits;
    let mean = keys_of_store.div_ceil(shards);
    // Shards are filled unevenly; four deviations of room cost next to nothing.
    let keys = if shards == 1 { mean } else { mean + 4 * mean.isqrt() };
    sizing::blocks_for(keys, config.slices, config.false_positive_rate)
}

impl Builder {
    /// Memory, disk and files that this configuration takes, before anything is written.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a missing or absurd setting.
    pub fn plan(&self) -> Result<Plan> {
        Ok(Plan::of(&self.settings.validate()?))
    }
}

impl Plan {
    pub(crate) fn of(config: &Config) -> Self {
        let shards = 1_u64 << config.shard_bits;
        let keys =
            config.max_keys.map_or(config.expected_keys, |max| max.max(config.expected_keys));
        let sizes = Sizes::of(config, keys);
        let filter = u64::from(shard_blocks(config, keys)) * BLOCK as u64 * shards;
        // A burst in one slice has the filter rebuilt for up to 2.25 times the keys of the limit, beside
        // one of before that was good for up to 1.1 times.
        let grown = if config.max_keys.is_some() { (7 * filter).div_ceil(2) } else { filter };
        let segment = (u64::from(sizes.segment_chunks) + 1) * PAGE as u64;
        let index = sizes.segment_keys * 6 + (sizes.segment_chunks as u64) * 16;
        // Segments grow with the filter; smaller ones of before are more.
        let spares = sizes.most_spares.max(Sizes::of(config, config.expected_keys).most_spares);
        let segments = SEGMENTS + spares as u64;
        let slices = u64::from(config.slices);
        let live = keys + keys.div_ceil(slices);
        let sealed = run::file_bytes(live) + run::file_bytes(keys.div_ceil(slices));
        let further = |per_key: f64| (per_key * 1e6) as u64;
        let columns = Columns::for_slices(config.slices);
        let per_key = sizing::bytes_per_key(config.slices, config.false_positive_rate);
        // Segments, and in memory their indexes: a window has so many.
        let unsealed = |bytes: f64| (SEGMENTS + 1) as f64 * bytes / SEGMENTS_PER_WINDOW as f64;
        let load = config.expected_keys as f64
            / shards as f64
            / f64::from(shard_blocks(config, config.expected_keys))
            / f64::from(columns.lanes())
            / f64::from(config.slices);
        Plan {
            memory_bytes: grown + (SEGMENTS + 1) * (segment + index),
            disk_bytes: grown
                + (segments + 1) * segment
                + LOGS * sizes.log_bytes
                + sealed
                + 4 * PAGE as u64,
            files: 4 + 2 + segments + LOGS + (slices + 1) * MERGE_AT as u64,
            memory_per_further_million: further(per_key + unsealed(16.1 + 6.0)),
            disk_per_further_million: further(per_key + 16.1 + unsealed(16.1)),
            shards: 1 << config.shard_bits,
            filter_bytes: filter,
            filter_bits_per_key: filter as f64 * 8.0 / keys as f64,
            expected_false_positive_rate: sizing::false_positive_rate(columns, config.slices, load),
            slice: Duration::from_nanos(config.slice_ns.unsigned_abs()),
            max_age: Duration::from_nanos((config.window_ns + config.slice_ns).unsigned_abs()),
        }
    }
}

/// Bytes in the unit that leaves one to four digits before the point.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.96 would be shown as 1024.0.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// A span of time in its two largest units; whole ones from a minute on.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 59.9996 would be shown as 60.000.
        let is_short = self.0 < Duration::from_micros(59_999_500);
        let seconds = if is_short { 0 } else { self.0.as_secs_f64().round() as u64 };
        let two = |large: u64, a: &str, small: u64, b: &str| match (seconds % large) / small {
            0 => format!("{} {a}", seconds / large),
            rest => format!("{} {a} {rest} {b}", seconds / large),
        };
        f.pad(&match seconds {
            86_400.. => two(86_400, "d", 3_600, "h"),
            3_600.. => two(3_600, "h", 60, "min"),
            60.. => two(60, "min", 1, "s"),
            _ if self.0.subsec_nanos() == 0 => format!("{} s", self.0.as_secs()),
            _ => format!("{:.3?}", self.0),
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory               {:>12}", Bytes(self.memory_bytes))?;
        writeln!(f, "  of that the filter {:>12}", Bytes(self.filter_bytes))?;
        writeln!(f, "disk                 {:>12}", Bytes(self.disk_bytes))?;
        writeln!(f, "files, at most       {:>12}", self.files)?;
        let (memory, disk) = (self.memory_per_further_million, self.disk_per_further_million);
        let (memory, disk) = (Bytes(memory), Bytes(disk));
        writeln!(f, "each further million {memory:>12} memory, {disk} disk")?;
        writeln!(f, "filter bits a key    {:>12.1}", self.filter_bits_per_key)?;
        let rate = self.expected_false_positive_rate;
        writeln!(f, "false positives      {:>12.3} %", rate * 100.0)?;
        writeln!(f, "expiry in steps of   {:>12}", Span(self.slice))?;
        write!(f, "remembered at most   {:>12}", Span(self.max_age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_spans_are_shown_in_units_that_fit() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1, 5 << 30, 3 << 40, u64::MAX];
        let shown = shown.map(|bytes| Bytes(bytes).to_string());
        let expected =
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB", "5.0 GiB", "3.0 TiB"];
        assert_eq!(shown[..8], expected);
        assert_eq!(shown[8], "16384.0 PiB");
        let spans = [
            (Duration::from_nanos(15), "15.000ns"),
            (Duration::from_millis(1500), "1.500s"),
            (Duration::from_secs(10), "10 s"),
            (Duration::from_millis(59_600), "59.600s"),
            (Duration::from_secs(3600) / 7, "8 min 34 s"),
            (Duration::from_secs(3600) + Duration::from_secs(3600) / 7, "1 h 8 min"),
            (Duration::from_secs(7200), "2 h"),
            (Duration::from_secs(86_400) * 8 / 7, "1 d 3 h"),
            (Duration::from_nanos(59_999_999_999), "1 min"),
        ];
        for (span, expected) in spans {
            assert_eq!(Span(span).to_string(), expected);
        }
        assert_eq!(
            format!("{:>9}|{:>6}", Bytes(1 << 20), Span(Duration::ZERO)),
            "  1.0 MiB|   0 s"
        );
    }
}
