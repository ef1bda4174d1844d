//! Syncing and closing.

use std::sync::atomic::Ordering::Release;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::names::{self, Kind};
use crate::log::{Level, end_in};
use crate::telemetry::events;

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
        if !self.is_journal_suspect()
            && let Err(error) = self.sync_journals()
        {
            self.suspect_journal(&error);
        }
        if self.is_journal_suspect() {
            self.heal_journal()?;
        }
        // All of the record of time is in one page, which is dirty again when it is written: after an
        // error the whole of it is written anew.
        let sync_clock = || {
            self.time.record_anchor();
            self.ledger.storage().sync(names::CLOCK, &self.time.region())
        };
        sync_clock().or_else(|_| sync_clock())
    }

    /// Writes the segments of the journal to the disk.
    pub(super) fn sync_journals(&self) -> Result<()> {
        let storage = self.ledger.storage();
        self.segments_in_use().into_iter().try_for_each(|segment| {
            storage.sync(&names::numbered(Kind::Journal, segment.id), segment.region())
        })
    }

    /// Ends background work, refuses further calls, writes everything to the disk, and gives the
    /// lock back. Closing again does nothing.
    pub(crate) fn close(&self) -> Result<()> {
        if self.origin.is_elsewhere() {
            return Err(Error::Forked);
        }
        // So that the last second counts too.
        self.publish_meters();
        if !self.mark_closed() {
            return Ok(());
        }
        if let Some(shared) = self.shared() {
            shared.flush();
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
        let handed = self.hand_over();
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
        let closed = synced.and(named).and(handed);
        events::closed(&self.path(), &closed);
        closed
    }
}
