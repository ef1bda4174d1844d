//! Keys that something else has marked at the server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::MemoryAuthority;
use crate::authority::{Legacy, Result};
use crate::time::nanos;

/// Each key with the moment when it is over.
pub(super) type Marks = HashMap<Vec<u8>, i64>;

impl MemoryAuthority {
    /// Marks a key for so long, as another program does; from then on stores that are opened ask for keys of
    /// before.
    pub fn mark_legacy(&self, key: impl AsRef<[u8]>, lives: Duration) {
        let until_ns = self.now_ns().saturating_add(nanos(lives));
        let mut legacy = self.shared.legacy.lock();
        legacy.get_or_insert_default().insert(key.as_ref().to_vec(), until_ns);
    }

    fn legacy_call(
        &self,
        deadline: Instant,
        mut work: impl FnMut(&mut Marks) -> Vec<bool>,
    ) -> Result<Vec<bool>> {
        self.count(|calls| calls.legacy += 1);
        let fault = self.meet_fault(deadline)?;
        let now_ns = self.now_ns();
        let mut legacy = self.shared.legacy.lock();
        let marks = legacy.get_or_insert_default();
        marks.retain(|_, until_ns| *until_ns > now_ns);
        let answer = work(marks);
        drop(legacy);
        self.answer_with(fault, deadline, Ok(answer))
    }
}

impl Legacy for MemoryAuthority {
    fn are_marked(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<bool>> {
        self.legacy_call(deadline, |marks| {
            keys.iter().map(|key| marks.contains_key(*key)).collect()
        })
    }

    fn forget(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<bool>> {
        self.legacy_call(deadline, |marks| {
            keys.iter().map(|key| marks.remove(*key).is_some()).collect()
        })
    }
}
