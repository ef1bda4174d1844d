//! The engine's side of the log: who enters, who waits, and what is undone when a sync fails.

use std::sync::atomic::Ordering::{AcqRel, Release};

use super::Engine;
use super::later::deferral;
use crate::config::Durability;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::log::BlockHead;
use crate::log::Host;
use crate::shard::{Call, Shard};
use crate::worker::{self, Ticker};

/// Ended logs that wait for their records to be sealed; with more, the segment in use is sealed
/// before it is full.
const MOST_ENDED: usize = 2;

impl Engine {
    /// A call that may mark keys.
    #[inline(always)]
    pub(super) fn begin(&self) -> Result<Call> {
        let mut call = Call::default();
        if self.tools.log.has_marks() {
            call.epoch = self.tools.log.enter(self)?;
        }
        Ok(call)
    }

    /// A call whose marks are logged at every level.
    pub(super) fn begin_logged(&self) -> Result<Call> {
        let epoch = self.tools.log.enter(self)?;
        Ok(Call { epoch, ..Call::default() })
    }

    /// Leaves what the call marked, and waits until all that it relies on is on the disk. No lock
    /// may be held.
    #[cold]
    pub(super) fn finish_logged(&self, call: &mut Call) -> Result<()> {
        let log = &self.tools.log;
        if call.epoch > 0 {
            log.leave(call.epoch, &mut call.logged);
            if call.must_sync {
                call.wait = call.wait.max(call.epoch);
            }
            call.epoch = 0;
        }
        let mut synced = Ok(());
        if call.wait > 0 {
            synced = match deferral::waits_for_nobody() {
                true if log.is_pending(call.wait) => {
                    deferral::leave(call.wait);
                    Ok(())
                }
                // Nothing to wait for, so no time passes in which another owner could follow.
                true => log.wait(call.wait, self),
                false => log.wait(call.wait, self).and_then(|()| self.still_owns()),
            };
        }
        if self.maintenance.log_ended.swap(false, AcqRel) {
            self.schedule_log();
        }
        synced
    }

    /// Whether a mark of an epoch is one that was not withdrawn, under the lock of its shard. Once the epoch
    /// is on the disk that is not told from a mark which followed after the key was forgotten: to lose that
    /// one is the lesser mistake.
    pub(super) fn stands(&self, shard: &Shard, digest: Digest, epoch: u64) -> bool {
        if self.tools.log.is_pending(epoch) {
            return shard.is_pending_in(digest, epoch);
        }
        !self.tools.log.has_failed(epoch)
    }

    /// Has the log synced in the background, if the level asks for it.
    pub(super) fn begin_ticking(&self) -> Result<()> {
        let Durability::Interval(interval) = self.config.durability else { return Ok(()) };
        if !self.tools.log.has_marks() {
            return Ok(());
        }
        // Twice in the interval, so that what waited half of it has the other half to be synced.
        let ticker: std::sync::Weak<Engine> = self.me.clone();
        worker::tick_every(ticker, interval / 2)
            .map_err(|e| Error::io("starting a thread for", self.ledger.storage().path(""), e))
    }

    /// Brings everything that was logged to the disk.
    pub(super) fn sync_log(&self) -> Result<()> {
        self.tools.log.sync(self)
    }

    /// Prepares the next log, and sees to it that there are not too many old ones.
    pub(super) fn keep_log(&self) -> Result<()> {
        self.tools.log.prepare_spare(self)?;
        let behind = !self.tools.journal.full_segments().is_empty();
        if !behind && self.tools.log.ended() > MOST_ENDED {
            self.tools.journal.retire()?;
            self.schedule_seal();
        }
        Ok(())
    }
}

impl Ticker for Engine {
    fn tick(&self) {
        if !self.is_closed()
            && let Err(error) = self.sync_log()
        {
            self.note_background_error(&error);
        }
        if self.maintenance.log_ended.swap(false, AcqRel) {
            self.schedule_log();
        }
    }
}

impl Host for Engine {
    fn now_ns(&self) -> i64 {
        self.time.now()
    }

    fn stamp(&self, head: &mut BlockHead) {
        self.time.stamp(head);
    }

    fn boot_id(&self) -> [u8; 16] {
        self.time.boot_id()
    }

    fn unsealed(&self) -> Vec<u64> {
        self.tools.journal.unsealed()
    }

    #[cold]
    fn withdraw(&self, last: u64) {
        for shard in &self.shards {
            shard.lock().withdraw(&self.tools, last);
        }
    }

    fn log_failed(&self, file: u64, end: u64) {
        self.time.note_log_end(file, end);
    }

    fn log_ended(&self) {
        self.maintenance.log_ended.store(true, Release);
    }
}
