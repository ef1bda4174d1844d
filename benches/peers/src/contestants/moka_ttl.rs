//! moka's concurrent cache with a time to live.
//!
//! Its clock cannot be set, so in the time that a benchmark takes nothing would ever expire. It is
//! bounded by size as well, with the oldest going first: an eviction for every key that is new,
//! which is the work of the steady state. The bound is one window and a slice, as the store keeps.

use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{BuildDigestIsHash, Contestant, digest};
use crate::keys::Key;

pub(crate) struct MokaTtl {
    cache: Cache<u128, (), BuildDigestIsHash>,
}

impl MokaTtl {
    pub(crate) fn new(live: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(live + live / 7)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(Duration::from_secs(3600))
            .build_with_hasher(BuildDigestIsHash::default());
        MokaTtl { cache }
    }

    /// Whether the key was there: a look-up and an insertion in one step.
    fn observe(&self, digest: u128) -> bool {
        !self.cache.entry(digest).or_insert(()).is_fresh()
    }
}

impl Contestant for MokaTtl {
    fn name(&self) -> &'static str {
        "moka, time to live"
    }

    fn slow(&self) -> bool {
        true
    }

    fn advance(&self, _now: u64) {}

    fn observe_each(&self, keys: &[Key], answers: &mut [bool]) {
        for (key, answer) in keys.iter().zip(answers) {
            *answer = self.observe(digest(key));
        }
    }

    /// There is no call for many keys.
    fn observe_batches(&self, keys: &[Key], _batch: usize, answers: &mut [bool]) {
        self.observe_each(keys, answers);
    }

    fn settle(&self) {
        self.cache.run_pending_tasks();
    }
}
