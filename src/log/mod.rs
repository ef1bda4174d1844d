//! The log: what has to survive power loss, in one sequential file, one sync for many callers.
//!
//! Callers enter the epoch that is open, do their work, leave what they did, and wait until their
//! epoch is on the disk. Whoever waits first leads: he closes the epoch, waits until all who entered
//! it have left, writes one block and syncs it, while the others fill the next epoch.
//!
//! Three levels use it: `Sync` waits for every mark, `Interval` has the background lead, and
//! `Process` logs only what `forget` did, which is synced at every level.

mod files;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use files::Files;
pub(crate) use files::{Host, end_in};
pub(crate) use read::{Logged, read_all};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::log::Entries;
use crate::format::record::Record;
use crate::ledger::Ledger;
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard};

/// What is logged, and who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing: the store lives in memory.
    Off,
    /// Tombstones; `forget` waits.
    Tombstones,
    /// Everything; `forget` waits, the background syncs the rest.
    Interval,
    /// Everything; every mark waits.
    Sync,
}

impl Level {
    /// As it stands in the header of a log.
    pub(crate) fn code(self) -> u64 {
        self as u64
    }

    /// Whether a log of that code has every mark.
    pub(crate) fn code_has_marks(code: u64) -> bool {
        code >= Level::Interval as u64
    }
}

pub(crate) struct Log {
    level: Level,
    state: Mutex<State>,
    changed: Condvar,
    /// All epochs up to this one are on the disk or have failed.
    resolved: AtomicU64,
    files: Mutex<Files>,
}

#[derive(Default)]
struct State {
    /// The epoch that callers enter.
    open: u64,
    /// Callers inside the open epoch and the one before, by the lowest bit of its number.
    inside: [u32; 2],
    /// Control records, in the order in which they have to be read back, and what is left over from
    /// blocks that failed.
    entries: Entries,
    /// Marks of the open epoch and the one before. Apart, so that a block has no mark of an epoch
    /// that may still fail: it would be on the disk, although its caller was told an error.
    marks: [Entries; 2],
    /// Empty, with the memory of blocks that were written.
    spare: Entries,
    /// Somebody writes a block, or waits to.
    leading: bool,
    /// Epochs that did not reach the disk: last to first, and why.
    failed: BTreeMap<u64, (u64, Failure)>,
    /// The last attempt failed: nobody enters before a new file was made.
    broken: Option<Failure>,
}

impl State {
    /// What goes into the block of an epoch that everybody has left.
    fn take(&mut self, epoch: u64) -> Entries {
        let marks = &mut self.marks[epoch as usize & 1];
        if self.entries.is_empty() {
            // What most blocks are: all marks at once, without a copy.
            return std::mem::replace(marks, std::mem::take(&mut self.spare));
        }
        let mut entries = std::mem::take(&mut self.entries);
        entries.append(marks);
        marks.clear();
        entries
    }

    /// Keeps the memory of a block that was written, unless there is more already.
    fn recycle(&mut self, mut entries: Entries) {
        entries.clear();
        if entries.capacity() > self.spare.capacity() {
            self.spare = entries;
        }
    }
}

/// An error that many get.
#[derive(Clone, Debug)]
struct Failure {
    detail: String,
    /// The disk is full: nothing is wrong with what is on it.
    kind: std::io::ErrorKind,
    path: std::path::PathBuf,
}

impl Failure {
    fn of(error: &Error, ledger: &Ledger) -> Self {
        match error {
            Error::Io { source, path, .. } => {
                Failure { detail: error.to_string(), kind: source.kind(), path: path.clone() }
            }
            other => Failure {
                detail: other.to_string(),
                kind: std::io::ErrorKind::Other,
                path: ledger.storage().path(crate::format::names::MANIFEST),
            },
        }
    }

    /// For those whose records were withdrawn.
    fn error(&self) -> Error {
        use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
        match self.kind {
            StorageFull | QuotaExceeded | OutOfMemory => {
                Error::io("allocating space for", &self.path, self.kind)
            }
            _ => Error::Poisoned { detail: self.detail.clone() },
        }
    }
}

impl Log {
    pub(crate) fn new(ledger: Arc<Ledger>, level: Level, capacity: u64) -> Self {
        Log {
            level,
            // Zero stands for "no epoch".
            state: Mutex::new(State { open: 1, ..State::default() }),
            changed: Condvar::new(),
            resolved: AtomicU64::new(0),
            files: Mutex::new(Files::new(ledger, level, capacity)),
        }
    }

    #[inline]
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Whether marks are logged.
    #[inline(always)]
    pub(crate) fn has_marks(&self) -> bool {
        self.level >= Level::Interval
    }

    /// Whether an epoch's outcome is still open.
    #[inline]
    pub(crate) fn is_pending(&self, epoch: u64) -> bool {
        epoch > self.resolved.load(Acquire)
    }

    /// Whether an epoch whose outcome is known did not reach the disk.
    pub(crate) fn has_failed(&self, epoch: u64) -> bool {
        let state = self.state.lock();
        state.failed.range(epoch..).next().is_some_and(|(_, (first, _))| *first <= epoch)
    }

    /// Enters the open epoch; whoever entered must leave.
    pub(crate) fn enter(&self, host: &dyn Host) -> Result<u64> {
        let mut state = self.state.lock();
        if state.broken.is_some() {
            drop(state);
            self.heal(host)?;
            state = self.state.lock();
            if let Some(failure) = &state.broken {
                return Err(failure.error());
            }
        }
        let epoch = state.open;
        state.inside[epoch as usize & 1] += 1;
        Ok(epoch)
    }

    /// Leaves what the caller marked.
    pub(crate) fn leave(&self, epoch: u64, marked: &mut Vec<(u64, Digest)>) {
        let mut state = self.state.lock();
        for of_slice in marked.chunk_by(|a, b| a.0 == b.0) {
            let marks = &mut state.marks[epoch as usize & 1];
            marks.digests(of_slice[0].0, of_slice.iter().map(|(_, digest)| *digest));
        }
        let inside = &mut state.inside[epoch as usize & 1];
        *inside -= 1;
        if *inside == 0 && state.leading {
            self.changed.notify_all();
        }
        drop(state);
        marked.clear();
    }

    /// Adds a control record, in the order in which it took effect: under the lock of its shard.
    /// `counted` is a segment of the journal with the tombstones that it has now.
    pub(crate) fn append(&self, record: &Record<'_>, counted: Option<(u64, u64)>) {
        let entries = &mut self.state.lock().entries;
        entries.record(record);
        if let Some((segment, tombstones)) = counted {
            entries.count(segment, tombstones);
        }
    }

    /// Waits until an epoch is on the disk. Not to be called by who is inside an epoch, or holds a
    /// shard.
    pub(crate) fn wait(&self, epoch: u64, host: &dyn Host) -> Result<()> {
        if !self.is_pending(epoch) && self.state.lock().failed.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock();
        while self.is_pending(epoch) {
            if state.leading {
                self.changed.wait(&mut state);
            } else {
                state = self.lead(state, host);
            }
        }
        match state.failed.range(epoch..).next() {
            Some((_, (first, failure))) if *first <= epoch => Err(failure.error()),
            _ => Ok(()),
        }
    }

    /// Writes everything that was left so far, and waits for it.
    pub(crate) fn sync(&self, host: &dyn Host) -> Result<()> {
        if self.level == Level::Off {
            return Ok(());
        }
        let broken = self.state.lock().broken.is_some();
        if broken {
            self.heal(host)?;
        }
        let epoch = self.state.lock().open;
        self.wait(epoch, host)
    }

    /// Closes the open epoch and brings it to the disk.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        host: &dyn Host,
    ) -> MutexGuard<'a, State> {
        state.leading = true;
        let closing = state.open;
        state.open += 1;
        // What is acknowledged before this instant has been left by now, or is on the disk.
        let covered_ns = host.now_ns();
        while state.inside[closing as usize & 1] > 0 {
            self.changed.wait(&mut state);
        }
        let entries = state.take(closing);
        drop(state);
        let written = self.files.lock().write(&entries, covered_ns, host);
        let mut state = self.state.lock();
        let through = match written {
            Ok(()) => {
                state.broken = None;
                state.recycle(entries);
                closing
            }
            Err(error) => {
                state = self.fail(state, closing, entries, &error, host);
                state.open - 1
            }
        };
        self.resolved.store(through, Release);
        state.leading = false;
        self.changed.notify_all();
        state
    }

    /// Withdraws all epochs from `first` on, those included that were filled meanwhile.
    fn fail<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        first: u64,
        entries: Entries,
        error: &Error,
        host: &dyn Host,
    ) -> MutexGuard<'a, State> {
        let failure = Failure::of(error, self.files.lock().ledger());
        state.broken = Some(failure.clone());
        let last = state.open;
        state.open += 1;
        while state.inside[last as usize & 1] > 0 {
            self.changed.wait(&mut state);
        }
        let later = state.take(last);
        if self.level != Level::Sync {
            // These marks were acknowledged: they stay in memory until there is a file for them.
            state.entries = entries;
            state.entries.append(&later);
        }
        drop(state);
        host.withdraw(last);
        let mut state = self.state.lock();
        state.failed.insert(last, (first, failure));
        state
    }

    /// Tries to go on in a new file.
    #[cold]
    fn heal(&self, host: &dyn Host) -> Result<()> {
        let mut state = self.state.lock();
        while state.leading {
            self.changed.wait(&mut state);
        }
        if state.broken.is_none() {
            return Ok(());
        }
        state.leading = true;
        let entries = std::mem::take(&mut state.entries);
        let covered_ns = host.now_ns();
        drop(state);
        let mut files = self.files.lock();
        let written = files
            .begin_next(entries.block_len(), host)
            .and_then(|()| files.write(&entries, covered_ns, host));
        let failure = written.as_ref().err().map(|error| Failure::of(error, files.ledger()));
        drop(files);
        let mut state = self.state.lock();
        if failure.is_some() {
            let mut entries = entries;
            entries.append(&std::mem::take(&mut state.entries));
            state.entries = entries;
        }
        state.broken = failure.clone();
        state.leading = false;
        self.changed.notify_all();
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Makes a file for when the one in use is full. For the background.
    pub(crate) fn prepare_spare(&self, host: &dyn Host) -> Result<()> {
        Files::prepare_spare(&self.files, host)
    }

    /// What follows goes to another file, so that the ones before can be dropped when what they
    /// hold is sealed.
    pub(crate) fn begin_next(&self, host: &dyn Host) -> Result<()> {
        self.files.lock().end(host)
    }

    /// Files that are not needed any more when only the segments `unsealed` are left.
    pub(crate) fn droppable(&self, unsealed: &[u64]) -> Vec<u64> {
        self.files.lock().droppable(unsealed)
    }

    /// The files were dropped from the manifest.
    pub(crate) fn dropped(&self, files: &[u64]) {
        self.files.lock().dropped(files);
    }

    /// Ended files whose records are not sealed yet.
    pub(crate) fn ended(&self) -> usize {
        self.files.lock().ended()
    }

    /// Where the file in use ends, for the manifest of a clean close.
    pub(crate) fn close(&self) -> Option<(u64, u64)> {
        self.files.lock().close()
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let state = self.state.lock();
        let all = state.marks.iter().chain([&state.entries, &state.spare]);
        all.map(|entries| entries.capacity() as u64).sum()
    }
}

#[cfg(all(test, feature = "test-storage", not(loom)))]
mod tests;
