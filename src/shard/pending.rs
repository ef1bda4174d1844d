//! What was marked and is not on the disk yet: whoever is told of it waits, and it is undone when
//! the sync fails.

use std::sync::Arc;

use super::control::ClaimState;
use super::{Call, Shard, Tools};
use crate::digest::Digest;
use crate::format::kept::Kept;
use crate::format::record::Record;
use crate::log::{Level, Log};
use crate::replay::Tombstone;

/// A mark of an epoch of the log.
pub(crate) struct Pending {
    epoch: u64,
    digest: Digest,
    mark: Mark,
}

pub(crate) enum Mark {
    /// Recorded in this slice; the tombstone that this ended or changed.
    Recorded(u64, Option<Tombstone>),
    /// Recorded again, in the second slice beside the first.
    Refreshed(u64, u64),
    /// Forgotten: the slice in which it was live, and the tombstone that it had before.
    Forgotten(u64, Option<Tombstone>),
    /// What was kept in this slice, under this tag, is not any more: its key is forgotten.
    Dropped(u64, u8, Arc<[u8]>),
    /// Claimed with this token.
    Claimed(u64),
    /// This claim was ended by a commit. Apart, so that marks without claims stay small.
    Committed(Box<ClaimState>),
}

impl Shard {
    /// Notes a mark, where somebody will wait for it.
    #[inline(always)]
    pub(super) fn note_pending(
        &mut self,
        log: &Log,
        call: &mut Call,
        digest: Digest,
        mark: impl FnOnce() -> Mark,
    ) {
        if call.epoch > 0 {
            self.note_logged(log, call, digest, mark());
        }
    }

    #[inline(never)]
    fn note_logged(&mut self, log: &Log, call: &mut Call, digest: Digest, mark: Mark) {
        if log.level() != Level::Sync && !matches!(mark, Mark::Forgotten(..) | Mark::Dropped(..)) {
            return;
        }
        call.must_sync = true;
        while self.pending.front().is_some_and(|first| !log.is_pending(first.epoch)) {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending { epoch: call.epoch, digest, mark });
    }

    /// An answer about the digest waits for what of it is not on the disk yet.
    #[inline]
    pub(crate) fn wait_for(&self, log: &Log, call: &mut Call, digest: Digest) {
        if !self.pending.is_empty() {
            self.wait_for_pending(log, call, digest);
        }
    }

    #[cold]
    fn wait_for_pending(&self, log: &Log, call: &mut Call, digest: Digest) {
        let newest = self.pending.iter().rev().find(|pending| pending.digest == digest);
        if let Some(pending) = newest.filter(|pending| log.is_pending(pending.epoch)) {
            call.wait = call.wait.max(pending.epoch);
        }
    }

    /// Whether the digest has a mark of that epoch, not withdrawn.
    pub(crate) fn is_pending_in(&self, digest: Digest, epoch: u64) -> bool {
        let is_it = |pending: &Pending| (pending.epoch, pending.digest) == (epoch, digest);
        self.pending.iter().any(is_it)
    }

    /// Undoes every mark of epochs up to `last` that did not reach the disk, the newest first.
    pub(crate) fn withdraw(&mut self, tools: &Tools, last: u64) {
        let mut kept = std::collections::VecDeque::new();
        for pending in std::mem::take(&mut self.pending).into_iter().rev() {
            if pending.epoch > last {
                kept.push_front(pending);
            } else if tools.log.is_pending(pending.epoch) {
                self.undo(tools, pending.digest, pending.mark);
            }
        }
        self.pending = kept;
    }

    fn undo(&mut self, tools: &Tools, digest: Digest, mark: Mark) {
        match mark {
            Mark::Recorded(slice, tombstone) => {
                self.undo_kept(tools, digest, slice);
                self.take_out(digest, slice);
                self.count(slice, -1);
                tools.quota.give_back(1);
                self.new = self.new.saturating_sub(1);
                if let Some(tombstone) = tombstone {
                    let record = Record::Tombstone { digest, slice: tombstone.newest };
                    self.journal_undo(tools, &record);
                    self.tombstones.insert(digest, tombstone);
                }
            }
            Mark::Refreshed(before, slice) => {
                let segment = self.take_out(digest, slice);
                self.count(slice, -1);
                self.uncount_refreshed(segment, before);
            }
            Mark::Forgotten(slice, before) => {
                self.journal_undo(tools, &Record::Revived { digest, slice });
                match before {
                    Some(before) => self.tombstones.insert(digest, before),
                    None => self.tombstones.remove(&digest),
                };
                self.count(slice, 1);
                // Room that was given back may be gone; the key is there all the same.
                tools.quota.give_back(-1);
                self.counters.forgotten = self.counters.forgotten.saturating_sub(1);
            }
            Mark::Dropped(slice, tag, bytes) => {
                self.undo_forget_kept(tools, digest, (slice, tag), &bytes);
            }
            Mark::Claimed(token) => {
                let current = self.claims.get(&digest).is_some_and(|claim| claim.token == token);
                if current {
                    self.journal_undo(tools, &Record::Abandon { token });
                    self.drop_claim(tools, digest);
                }
            }
            Mark::Committed(claim) => {
                self.journal_undo(tools, &Shard::claim_record(digest, &claim));
                self.put_claim(tools, digest, *claim);
            }
        }
    }

    /// Returns the segment that held the digest.
    fn take_out(&self, digest: Digest, slice: u64) -> Option<u64> {
        let mut segment = None;
        for set in self.frozen.iter().map(|f| &**f).chain(&self.active) {
            if set.withdraw(digest, slice) {
                segment = Some(set.segment.id);
            }
        }
        segment
    }

    /// The last mark was no new key, but a refresh of one that is live in slice `before`.
    pub(super) fn was_refreshed(&mut self, call: &Call, digest: Digest, before: u64) {
        if let Some(last) = self.pending.back_mut()
            && (last.epoch, last.digest) == (call.epoch, digest)
            && let Mark::Recorded(slice, _) = last.mark
        {
            last.mark = Mark::Refreshed(before, slice);
        }
    }

    /// The last mark ended a claim that keeps something: should it be undone, it keeps that again.
    pub(super) fn was_kept(&mut self, call: &Call, digest: Digest, kept: Box<Kept>) {
        if let Some(last) = self.pending.back_mut()
            && (last.epoch, last.digest) == (call.epoch, digest)
            && let Mark::Committed(claim) = &mut last.mark
        {
            claim.kept = Some(kept);
        }
    }

    /// Writes down an undoing, for a process that opens the store after this one was killed. Where
    /// there is no space for it, that process finds a claim of a dead owner, or a key forgotten.
    fn journal_undo(&mut self, tools: &Tools, record: &Record<'_>) {
        let _ = self.journal_control(tools, &mut Call::default(), record);
    }
}
