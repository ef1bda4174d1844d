//! The engine: on disk, `Durability::Process`, default slices. Its clock follows the stream.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use onceonly::{Dedup, Durability, ManualClock, Verdict};
use tempfile::TempDir;

use super::Contestant;
use crate::args::Result;
use crate::keys::Key;
use crate::memory::{disk_by_kind, mapped_by_kind};

/// Time from one new key to the next.
const KEY_NS: u64 = 1000;

pub(crate) struct Store {
    store: Dedup,
    clock: ManualClock,
    now: AtomicU64,
    /// Deleted after the store is closed: fields are dropped in order.
    dir: TempDir,
}

impl Store {
    /// A new store whose window holds `live` keys.
    pub(crate) fn open(live: u64, dir: &Path) -> Result<Self> {
        Self::open_planned(live, live, dir)
    }

    /// The same, with another number of keys expected than come.
    pub(crate) fn open_planned(live: u64, planned: u64, dir: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("store-").tempdir_in(dir)?;
        let clock = ManualClock::new(SystemTime::now());
        let store = Dedup::builder()
            .window(Duration::from_nanos(live * KEY_NS))
            .expected_keys(planned)
            .durability(Durability::Process)
            .clock(clock.clone())
            .open(dir.path())?;
        Ok(Store { store, clock, now: AtomicU64::new(0), dir })
    }

    /// The store itself, for calls that only it has.
    pub(crate) fn dedup(&self) -> &Dedup {
        &self.store
    }
}

fn seen(verdict: Verdict) -> bool {
    verdict == Verdict::Duplicate
}

impl Contestant for Store {
    fn name(&self) -> &'static str {
        "onceonly"
    }

    fn advance(&self, now: u64) {
        let before = self.now.swap(now, Ordering::Relaxed);
        self.clock.advance(Duration::from_nanos((now - before) * KEY_NS));
    }

    fn observe_each(&self, keys: &[Key], answers: &mut [bool]) {
        for (key, answer) in keys.iter().zip(answers) {
            *answer = seen(self.store.observe(key).expect("observe"));
        }
    }

    fn observe_batches(&self, keys: &[Key], batch: usize, answers: &mut [bool]) {
        let mut verdicts = Vec::with_capacity(batch);
        for (keys, answers) in keys.chunks(batch).zip(answers.chunks_mut(batch)) {
            self.store.observe_batch_into(keys, &mut verdicts).expect("observe a batch");
            for (&verdict, answer) in verdicts.iter().zip(answers) {
                *answer = seen(verdict);
            }
        }
    }

    fn settle(&self) {
        self.store.settle();
    }

    fn disk_bytes(&self) -> u64 {
        self.store.stats().disk_bytes
    }

    fn told_memory_bytes(&self) -> Option<u64> {
        Some(self.store.stats().memory_bytes)
    }

    fn details(&self) -> Vec<String> {
        let stats = self.store.stats();
        let per_key = |bytes: u64| format!("{:.2}", bytes as f64 / stats.keys_live.max(1) as f64);
        let mut lines = vec![
            format!(
                "keys live {}, filter for {}, false positives {:.2e}, fill {:.3}, parts {:?}",
                stats.keys_live,
                stats.filter_capacity,
                stats.false_positive_rate,
                stats.filter_fill,
                stats.slices.iter().map(|slice| slice.sealed_parts).collect::<Vec<_>>(),
            ),
            format!(
                "background errors {} {}, rebuilding {}",
                stats.background_errors,
                stats.last_background_error.as_deref().unwrap_or_default(),
                stats.filters_rebuilding,
            ),
        ];
        let kinds = [
            ("mapped and resident", mapped_by_kind(self.dir.path())),
            ("on disk", disk_by_kind(self.dir.path())),
        ];
        for (what, kinds) in kinds {
            for (kind, bytes) in kinds.unwrap_or_default() {
                lines.push(format!("{what}: {kind} {} bytes per key", per_key(bytes)));
            }
        }
        lines
    }
}
