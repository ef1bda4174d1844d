//! The hard limit of live keys.

use std::sync::atomic::Ordering::AcqRel;

use crate::error::{Error, Result};
use crate::sync::{AtomicI64, Mutex};

/// Counts live keys when there is a limit; next to nothing when there is none.
pub(crate) struct Quota {
    max: Option<i64>,
    live: AtomicI64,
    /// Keys that were sealed when the store was opened, by slice; shards count the others.
    opened_with: Mutex<Vec<(u64, i64)>>,
}

impl Quota {
    pub(crate) fn new(max_keys: Option<u64>) -> Self {
        let max = max_keys.map(|max| i64::try_from(max).unwrap_or(i64::MAX));
        Quota { max, live: AtomicI64::new(0), opened_with: Mutex::default() }
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.max.is_some()
    }

    /// Room for `keys` more.
    pub(crate) fn take(&self, keys: usize) -> Result<()> {
        let Some(max) = self.max else { return Ok(()) };
        let keys = keys as i64;
        if keys == 0 {
            // Also where the limit was lowered below what is live.
            return Ok(());
        }
        if self.live.fetch_add(keys, AcqRel) + keys <= max {
            return Ok(());
        }
        self.live.fetch_sub(keys, AcqRel);
        Err(Error::Full { max_keys: max.unsigned_abs() })
    }

    pub(crate) fn give_back(&self, keys: i64) {
        if self.max.is_some() {
            self.live.fetch_sub(keys, AcqRel);
        }
    }

    /// Counts keys that were there when the store was opened; may pass the limit.
    pub(crate) fn found_sealed(&self, slice: u64, keys: u64) {
        let keys = keys.cast_signed();
        self.live.fetch_add(keys, AcqRel);
        self.opened_with.lock().push((slice, keys));
    }

    /// Counts a key read back from the journal; may pass the limit.
    pub(crate) fn found_unsealed(&self) {
        if self.max.is_some() {
            self.live.fetch_add(1, AcqRel);
        }
    }

    /// Gives back what slices before `oldest_live` held when the store was opened.
    pub(crate) fn expire(&self, oldest_live: u64) {
        self.opened_with.lock().retain(|(slice, keys)| {
            let live = *slice >= oldest_live;
            if !live {
                self.give_back(*keys);
            }
            live
        });
    }

    /// Live keys that were sealed when the store was opened.
    pub(crate) fn opened_with(&self) -> i64 {
        self.opened_with.lock().iter().map(|(_, keys)| keys).sum()
    }
}
