//! How many claims there are, for those who hold no lock.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicBool, AtomicUsize};

/// Claims of each shard, those of crashed owners included. A shard's number is written under its lock,
/// so a plain store does: a counter for all shards would be a locked instruction a claim, and one line
/// that all cores write.
pub(crate) struct ClaimsHeld {
    /// A shard has had a claim since the store was opened.
    any: AtomicBool,
    of_shard: Box<[CachePadded<AtomicUsize>]>,
}

impl ClaimsHeld {
    pub(crate) fn new(shards: usize) -> Self {
        let none = |_| CachePadded::new(AtomicUsize::new(0));
        ClaimsHeld { any: AtomicBool::new(false), of_shard: (0..shards).map(none).collect() }
    }

    /// Under the lock of the shard.
    #[inline]
    pub(super) fn set(&self, shard: usize, claims: usize) {
        if claims > 0 && !self.any.load(Relaxed) {
            self.any.store(true, Release);
        }
        self.of_shard[shard].store(claims, Release);
    }

    /// Whether any shard may have a claim.
    #[inline]
    pub(crate) fn may_be_any(&self) -> bool {
        self.any.load(Acquire)
    }

    #[inline]
    pub(crate) fn of(&self, shard: usize) -> usize {
        self.of_shard[shard].load(Acquire)
    }

    #[cfg(all(test, loom))]
    pub(crate) fn sum(&self) -> usize {
        self.of_shard.iter().map(|claims| claims.load(Acquire)).sum()
    }
}
