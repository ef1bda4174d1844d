//! Duplicates that are recorded again, and what that does to the number of live keys: a key counts
//! for the newest slice that holds it.

use std::sync::atomic::Ordering::Relaxed;

use super::{Call, Shard, Target, Tools};
use crate::digest::Digest;
use crate::error::Result;

/// Keys of `slice` that were recorded again in a segment of the journal, for a newer slice.
pub(crate) struct Refreshed {
    segment: u64,
    slice: u64,
    keys: u64,
}

impl Shard {
    /// Counts a duplicate of a key that slice `seen` holds, and refreshes it if the store does so:
    /// once per key and slice.
    #[inline]
    pub(crate) fn seen_again(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        seen: u64,
        target: Target,
    ) -> Result<()> {
        if tools.refresh_on_duplicate && seen < target.slice {
            if tools.has_kept.load(Relaxed) {
                self.refresh_kept(tools, call, digest, seen, target.slice)?;
            }
            self.journal_new(tools, call, digest, target)?;
            self.publish(digest, target, None);
            self.count(target.slice, 1);
            // It counts for the slice it expires with.
            self.count_refreshed(seen);
            self.was_refreshed(call, digest, seen);
            self.counters.refreshed += 1;
        }
        self.wait_for(&tools.log, call, digest);
        self.counters.duplicate += 1;
        if tools.traces {
            let refreshed = tools.refresh_on_duplicate && seen < target.slice;
            self.tally(tools, call, digest, if refreshed { target.slice } else { seen });
        }
        Ok(())
    }

    /// Counts a key of `slice` off, because a newer slice holds it too. That is remembered until the
    /// segment in use is sealed: the manifest then knows of it.
    pub(super) fn count_refreshed(&mut self, slice: u64) {
        self.count(slice, -1);
        let Some(active) = &self.active else { return };
        let segment = active.segment.id;
        match self.refreshed.iter_mut().find(|r| (r.segment, r.slice) == (segment, slice)) {
            Some(refreshed) => refreshed.keys += 1,
            None => self.refreshed.push(Refreshed { segment, slice, keys: 1 }),
        }
    }

    /// Undoes [`Shard::count_refreshed`] for a digest that was taken out of `segment`.
    pub(super) fn uncount_refreshed(&mut self, segment: Option<u64>, slice: u64) {
        self.count(slice, 1);
        let is_it = |r: &&mut Refreshed| Some(r.segment) == segment && r.slice == slice;
        if let Some(refreshed) = self.refreshed.iter_mut().find(is_it) {
            refreshed.keys = refreshed.keys.saturating_sub(1);
        }
    }

    /// Slices, and how many keys of each were refreshed in the `segments`.
    pub(crate) fn refreshed_in(&self, segments: &[u64]) -> impl Iterator<Item = (u64, u64)> {
        let here = self.refreshed.iter().filter(|r| segments.contains(&r.segment));
        here.map(|r| (r.slice, r.keys))
    }

    /// The manifest knows of what was refreshed in the `segments`.
    pub(crate) fn forget_refreshed(&mut self, segments: &[u64]) {
        self.refreshed.retain(|r| !segments.contains(&r.segment));
    }
}
