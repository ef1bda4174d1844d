//! What is known of one store's space.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Watcher;
use crate::stats::AuthorityStats;

/// What a store has agreed on with its authority.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) space: Arc<str>,
    pub(crate) check: u64,
    pub(crate) deadline: Duration,
    /// What others forget is known here after this long.
    pub(crate) forget_lag: Duration,
    /// For the only writer of the space: how often it writes.
    pub(crate) write_every: Option<Duration>,
}

pub(super) struct Space {
    pub(super) terms: Terms,
    watcher: OnceLock<Weak<dyn Watcher>>,
    pub(super) counters: Counters,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// It was opened, and the server has lost nothing since.
    is_open: bool,
    /// The number of the last entry of the forget log that was read.
    after: u64,
    /// When the forget log was last asked for what was read up to its end.
    read: Option<Instant>,
    /// When it was last asked for, whatever came of it.
    tried: Option<Instant>,
    /// When the owner writes next; `None` while it does not.
    next_write: Option<Instant>,
}

/// Reads of the forget log in a lag: one of them may fail.
const READS: u32 = 3;

impl Space {
    pub(super) fn new(terms: Terms) -> Self {
        let (watcher, counters) = (OnceLock::new(), Counters::default());
        Space { terms, watcher, counters, progress: Mutex::default() }
    }

    pub(super) fn watch(&self, watcher: Weak<dyn Watcher>) {
        // There is one store, and it says so once.
        let _ = self.watcher.set(watcher);
    }

    pub(super) fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.watcher.get().and_then(Weak::upgrade)
    }

    pub(super) fn begin_writing(&self) {
        self.progress.lock().next_write = Some(Instant::now());
    }

    pub(super) fn end_writing(&self) {
        self.progress.lock().next_write = None;
    }

    /// The owner has written; with `more` it goes on at once.
    pub(super) fn wrote(&self, more: bool) {
        let Some(every) = self.terms.write_every else { return };
        let mut progress = self.progress.lock();
        if progress.next_write.is_some() {
            progress.next_write = Some(Instant::now() + if more { Duration::ZERO } else { every });
        }
    }

    pub(super) fn write_is_due(&self) -> bool {
        let next_write = self.progress.lock().next_write;
        next_write.is_some_and(|next_write| next_write <= Instant::now())
    }

    pub(super) fn reading_is_due(&self) -> bool {
        self.terms.write_every.is_none() && self.rest() == Some(Duration::ZERO)
    }

    pub(super) fn is_open(&self) -> bool {
        self.progress.lock().is_open
    }

    pub(super) fn set_open(&self) {
        self.progress.lock().is_open = true;
    }

    /// The server may have lost its log, and counts anew.
    pub(super) fn set_lost(&self) {
        let mut progress = self.progress.lock();
        (progress.is_open, progress.after, progress.read) = (false, 0, None);
        progress.tried = None;
    }

    /// What was read could not be kept: nothing that is known here counts until it can.
    pub(super) fn set_stale(&self) {
        self.progress.lock().read = None;
    }

    /// The number after which the forget log is to be read.
    pub(super) fn begin_reading(&self) -> u64 {
        let mut progress = self.progress.lock();
        progress.tried = Some(Instant::now());
        progress.after
    }

    pub(super) fn read_to(&self, through: u64) {
        self.progress.lock().after = through;
    }

    /// Everything up to number `through` is known here, as it was when `asked`.
    pub(super) fn read_through(&self, through: u64, asked: Instant) {
        let mut progress = self.progress.lock();
        progress.after = progress.after.max(through);
        progress.read = progress.read.max(Some(asked));
        progress.tried = progress.tried.max(Some(asked));
    }

    pub(super) fn is_fresh(&self) -> bool {
        let read = self.progress.lock().read;
        read.is_some_and(|read| read.elapsed() < self.terms.forget_lag)
    }

    /// How long the forget log need not be read, or nothing be written; `None` for ever.
    pub(super) fn rest(&self) -> Option<Duration> {
        let progress = self.progress.lock();
        if self.terms.write_every.is_some() {
            let next_write = progress.next_write?;
            return Some(next_write.saturating_duration_since(Instant::now()));
        }
        let Some(tried) = progress.tried else { return Some(Duration::ZERO) };
        Some((self.terms.forget_lag / READS).saturating_sub(tried.elapsed()))
    }
}

#[derive(Default)]
pub(super) struct Counters {
    calls: AtomicU64,
    rows: AtomicU64,
    largest_call: AtomicU64,
    failed: AtomicU64,
    undecided: AtomicU64,
    forgotten: AtomicU64,
    legacy: AtomicU64,
}

impl Counters {
    /// A call with `rows` of this store.
    pub(super) fn count_call(&self, rows: usize, undecided: bool, failed: bool) {
        let rows = rows as u64;
        self.calls.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows, Relaxed);
        self.largest_call.fetch_max(rows, Relaxed);
        self.failed.fetch_add(u64::from(failed), Relaxed);
        self.undecided.fetch_add(u64::from(undecided), Relaxed);
    }

    pub(super) fn count_legacy(&self, keys: usize) {
        self.legacy.fetch_add(keys as u64, Relaxed);
    }

    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(super) fn count_forgotten(&self, digests: usize) {
        self.forgotten.fetch_add(digests as u64, Relaxed);
    }

    pub(super) fn stats(&self) -> AuthorityStats {
        AuthorityStats {
            calls: self.calls.load(Relaxed),
            rows: self.rows.load(Relaxed),
            largest_call: self.largest_call.load(Relaxed),
            failed_calls: self.failed.load(Relaxed),
            undecided_calls: self.undecided.load(Relaxed),
            forgotten_read: self.forgotten.load(Relaxed),
            legacy_asked: self.legacy.load(Relaxed),
            ..AuthorityStats::default()
        }
    }
}
