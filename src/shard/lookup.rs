//! Looking a digest up: what the filter suspects, the exact sets decide.

use super::Shard;
use crate::digest::Digest;
use crate::error::Result;

impl Shard {
    /// Columns that may hold the digest.
    #[inline]
    pub(crate) fn suspects(&self, digest: Digest) -> u64 {
        match &self.filter {
            Some(filter) => {
                filter.probe(filter.place(digest), self.catalog.current) & self.catalog.live_columns
            }
            None => self.catalog.live_columns,
        }
    }

    /// The newest live slice that holds the digest, whatever `forget` said of it.
    fn newest_slice(&self, digest: Digest, mask: u64) -> Result<Option<u64>> {
        let is_live = |slice| self.catalog.is_live(slice);
        let mut unsealed = self.active.as_ref().and_then(|a| a.find(digest, mask, is_live));
        for frozen in self.frozen.iter().rev() {
            unsealed = unsealed.max(frozen.find(digest, mask, is_live));
        }
        for slice in self.catalog.suspects(mask) {
            if unsealed.is_some_and(|found| found >= slice.sequence) {
                return Ok(unsealed);
            }
            for run in &slice.runs {
                if run.contains(digest)? {
                    return Ok(Some(slice.sequence));
                }
            }
        }
        Ok(unsealed)
    }

    /// The newest live slice that holds the digest, `None` also when it was forgotten.
    #[inline(always)]
    pub(crate) fn find(&self, digest: Digest, mask: u64) -> Result<Option<u64>> {
        if mask == 0 { Ok(None) } else { self.find_suspected(digest, mask) }
    }

    fn find_suspected(&self, digest: Digest, mask: u64) -> Result<Option<u64>> {
        if !self.tombstones.is_empty()
            && let Some(tombstone) = self.tombstones.get(&digest)
        {
            return Ok(Some(tombstone.revived).filter(|slice| self.catalog.is_live(*slice)));
        }
        self.newest_slice(digest, mask)
    }

    /// [`Shard::find`] for a key that is about to be marked; counts how the filter did.
    pub(crate) fn find_counted(&mut self, digest: Digest, mask: u64) -> Result<Option<u64>> {
        let found = self.find(digest, mask)?;
        if mask != 0 && self.filter.is_some() {
            self.counters.filter_positive += 1;
            self.counters.filter_false_positive += u64::from(found.is_none());
        }
        Ok(found)
    }

    /// Starts to fetch where to look for a suspected digest.
    #[inline]
    pub(crate) fn prefetch_fences(&self, digest: Digest, mask: u64) {
        if let Some(active) = &self.active {
            active.prefetch(digest, mask);
        }
        for slice in self.catalog.suspects(mask) {
            slice.runs.iter().for_each(|run| run.prefetch_fence(digest));
        }
    }

    /// Starts to fetch what [`Shard::observe`] will read of sealed parts, once that has arrived. The
    /// digest may be another shard's.
    #[inline]
    pub(crate) fn prefetch_pages(&self, digest: Digest, mask: u64) {
        for slice in self.catalog.suspects(mask) {
            slice.runs.iter().for_each(|run| run.prefetch(digest));
        }
    }

    /// The newest slice that holds a digest which is being restored. One that cannot be read counts
    /// as another key.
    #[cold]
    pub(super) fn newest_restored(&self, digest: Digest) -> Option<u64> {
        self.newest_slice(digest, self.suspects(digest)).unwrap_or_default()
    }
}
