//! Syncing and closing.

use std::sync::atomic::Ordering::Release;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::names::{self, Kind};

impl Engine {
    /// Writes everything acknowledged so far to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        // No job may replace a file between its sync and that of the manifest.
        let _gate = self.maintenance.gate.write();
        self.sync_files()?;
        self.ledger.make_durable()
    }

    fn sync_files(&self) -> Result<()> {
        self.refuse_poisoned()?;
        let storage = self.ledger.storage();
        let synced = self.sync_journals().and_then(|()| {
            for run in self.catalog().slices.iter().flat_map(|slice| &slice.runs) {
                storage.sync(&names::numbered(Kind::Run, run.file), run.region())?;
            }
            self.time.record_anchor();
            storage.sync(names::CLOCK, &self.time.region())
        });
        synced.inspect_err(|error| self.poison(error))
    }

    /// Writes the segments of the journal to the disk: those that are open, and those that shards
    /// still hold until they are sealed.
    fn sync_journals(&self) -> Result<()> {
        let mut segments = self.tools.journal.open_segments();
        for shard in &self.shards {
            let shard = shard.lock();
            let held = shard.frozen.iter().map(|f| &f.segment);
            let held = held.chain(shard.active.as_ref().map(|a| &a.segment));
            for segment in held {
                if !segments.iter().any(|known| known.id == segment.id) {
                    segments.push(std::sync::Arc::clone(segment));
                }
            }
        }
        for segment in segments {
            let name = names::numbered(Kind::Journal, segment.id);
            self.ledger.storage().sync(&name, segment.region())?;
        }
        Ok(())
    }

    /// Writes the journal and the manifest that names it to the disk.
    pub(super) fn sync_journal(&self) -> Result<()> {
        self.refuse_poisoned()?;
        self.sync_journals()
            .and_then(|()| self.ledger.make_durable())
            .inspect_err(|error| self.poison(error))
    }

    fn refuse_poisoned(&self) -> Result<()> {
        match &*self.poisoned.lock() {
            Some(detail) => Err(Error::Poisoned { detail: detail.clone() }),
            None => Ok(()),
        }
    }

    /// A failed sync is never retried: the kernel may have dropped the pages, and a second sync
    /// would succeed without them.
    fn poison(&self, error: &Error) {
        if let Error::Io { .. } = error {
            self.poisoned.lock().get_or_insert_with(|| error.to_string());
        }
    }

    /// Ends background work, refuses further calls, writes everything to the disk, and gives the
    /// lock back. Closing again does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        if !self.mark_closed() {
            return Ok(());
        }
        self.maintenance.stop.store(true, Release);
        // Waits for the jobs that touch files.
        let gate = self.maintenance.gate.write();
        for shard in &self.shards {
            shard.lock().closed = true;
        }
        let synced = self.sync_files();
        let closed_ns = self.window_now();
        let error = synced.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let named = self.ledger.update_durably(|manifest| {
            manifest.closed_ns = closed_ns;
            manifest.close_error = error;
        });
        self.ledger.close();
        self.time.close();
        self.ledger.storage().release();
        drop(gate);
        self.claims.changed();
        synced.and(named)
    }
}
