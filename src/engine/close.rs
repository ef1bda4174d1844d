//! Syncing and closing.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::Engine;
use crate::error::{Error, Result};
use crate::format::names::{self, Kind};
use crate::log::{Level, end_in};

impl Engine {
    /// Writes everything acknowledged so far to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.refuse_forked()?;
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.sync_log()?;
        if self.tools.log.level() != Level::Tombstones {
            // The log has every mark.
            return Ok(());
        }
        // No job may replace a file between its sync and that of the manifest.
        let _gate = self.maintenance.gate.write();
        let covered_ns = self.time.now();
        self.sync_files()?;
        self.ledger.update(|manifest| manifest.covered_ns = manifest.covered_ns.max(covered_ns))
    }

    /// Writes the journal and the record of time to the disk; sealed parts are there already.
    fn sync_files(&self) -> Result<()> {
        let storage = self.ledger.storage();
        let suspect = &self.maintenance.journal_suspect;
        if !suspect.load(Acquire)
            && let Err(error) = self.sync_journals()
        {
            self.note_background_error(&error);
            suspect.store(true, Release);
        }
        if suspect.load(Acquire) {
            self.heal_journal()?;
            suspect.store(false, Release);
        }
        self.time.record_anchor();
        storage.sync(names::CLOCK, &self.time.region())
    }

    /// A sync of the journal failed: the kernel may have dropped what it could not write, and a
    /// second sync would succeed without it. What the journal holds is still in memory, so it is
    /// sealed, into new files, and its own are given up.
    #[cold]
    fn heal_journal(&self) -> Result<()> {
        let poisoned = |detail: String| Err(Error::Poisoned { detail });
        match self.tools.journal.retire().and_then(|()| self.seal_due()) {
            Ok(()) if self.tools.journal.full_segments().is_empty() => Ok(()),
            Ok(()) => poisoned("the journal could not be written".to_owned()),
            Err(error) => poisoned(error.to_string()),
        }
    }

    /// Writes the segments of the journal to the disk: those that are open, and those that shards
    /// still hold until they are sealed.
    pub(super) fn sync_journals(&self) -> Result<()> {
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

    /// Ends background work, refuses further calls, writes everything to the disk, and gives the
    /// lock back. Closing again does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        if self.origin.is_elsewhere() {
            return Err(Error::Forked);
        }
        if !self.mark_closed() {
            return Ok(());
        }
        self.maintenance.stop.store(true, Release);
        // Waits for the jobs that touch files.
        let gate = self.maintenance.gate.write();
        let logged = self.sync_log();
        for shard in &self.shards {
            shard.lock().closed = true;
        }
        // Calls that were under way when the store was closed.
        let logged = logged.and_then(|()| self.sync_log());
        let synced = logged.and(self.sync_files());
        let closed_ns = self.window_now();
        let covered_ns = self.time.now();
        let error = synced.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let log = self.tools.log.close();
        let named = self.ledger.update(|manifest| {
            if error.is_empty() {
                manifest.covered_ns = covered_ns;
            }
            end_in(&mut manifest.logs, log);
            manifest.anchor = self.time.anchor(0);
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
