//! Merging sealed parts of one slice into one.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::run::{Run, RunWriter};
use super::sort::sort_unique;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::storage::Storage;
use crate::sync::AtomicBool;

/// Digests that are merged at a time, so that the working set stays in the cache.
const STEP_KEYS: u64 = 1 << 15;

/// Writes one run that holds what `runs` hold, without repetitions. Digests are uniform, so equal
/// parts of the range of values are gathered and sorted one after the other. Ends early with
/// [`Error::Closed`] when `stop` is set.
pub(crate) fn merge(
    storage: &dyn Storage,
    store: StoreId,
    file: u64,
    slice: u64,
    runs: &[Arc<Run>],
    stop: &AtomicBool,
) -> Result<Run> {
    let keys: u64 = runs.iter().map(|run| run.keys).sum();
    let mut writer = RunWriter::create(storage, file, slice, keys)?;
    let mut cursors: Vec<Cursor> = runs.iter().map(|run| Cursor::new(run)).collect();
    let (mut part, mut scratch) = (Vec::new(), Vec::new());
    let steps = keys.div_ceil(STEP_KEYS).next_power_of_two();
    for step in 1..=steps {
        if stop.load(Relaxed) {
            return Err(Error::Closed);
        }
        // The greatest upper half of this step; the last step takes all.
        let bound = if step == steps { u64::MAX } else { (u64::MAX / steps) * step };
        part.clear();
        for cursor in &mut cursors {
            cursor.take_up_to(bound, &mut part)?;
        }
        sort_unique(&mut part, &mut scratch);
        writer.push_all(&part)?;
    }
    writer.finish(store)
}

/// Reads a run from front to back.
struct Cursor<'a> {
    run: &'a Run,
    page: usize,
    buffer: Vec<Digest>,
    taken: usize,
}

impl<'a> Cursor<'a> {
    fn new(run: &'a Run) -> Self {
        Cursor { run, page: 0, buffer: Vec::new(), taken: 0 }
    }

    /// Moves all digests whose upper half is at most `bound` to `out`.
    fn take_up_to(&mut self, bound: u64, out: &mut Vec<Digest>) -> Result<()> {
        loop {
            let rest = &self.buffer[self.taken..];
            let count = rest.partition_point(|digest| digest.hi <= bound);
            out.extend_from_slice(&rest[..count]);
            self.taken += count;
            if self.taken < self.buffer.len() || self.page == self.run.page_count() {
                return Ok(());
            }
            self.buffer.clear();
            self.taken = 0;
            self.run.read_page(self.page, &mut self.buffer)?;
            self.page += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::HeapStorage;

    #[test]
    fn a_merged_run_holds_each_digest_once() {
        let storage = HeapStorage::default();
        let keys = if cfg!(miri) { 200 } else { 100_000 };
        let digest = |n: u64| Digest::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n);
        let runs: Vec<Arc<Run>> = (0..3)
            .map(|file| {
                let mut digests: Vec<_> =
                    (0..keys).filter(|n| n % 3 == file || n % 5 == 0).map(digest).collect();
                digests.sort();
                let mut writer =
                    RunWriter::create(&storage, file, 8, digests.len() as u64).unwrap();
                writer.push_all(&digests).unwrap();
                Arc::new(writer.finish([0; 16]).unwrap())
            })
            .collect();
        let merged = merge(&storage, [0; 16], 9, 8, &runs, &AtomicBool::new(false)).unwrap();
        assert_eq!((merged.keys, merged.slice), (keys, 8));
        let opened = Run::open(&storage, [0; 16], 9).unwrap();
        for n in 0..keys {
            assert!(opened.contains(digest(n)).unwrap());
        }
        assert!(!opened.contains(digest(keys)).unwrap());
    }
}
