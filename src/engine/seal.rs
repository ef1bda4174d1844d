//! Sealing: what full segments of the journal hold becomes one ordered file a slice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;

use super::Engine;
use super::maintain::MOST_WAITING;
use super::values::values_entry;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::exact::run::{Run, RunWriter};
use crate::exact::sort;
use crate::exact::values::Values;
use crate::format::chunk;
use crate::format::manifest::RunEntry;
use crate::format::names::{self, Kind};
use crate::shard::Call;
use crate::shard::active::Active;
use crate::telemetry::events;

impl Engine {
    /// Seals the segments that no chunk is taken from any more.
    pub(super) fn seal_due(&self) -> Result<()> {
        self.note_segment();
        let full = self.tools.journal.full_segments();
        if full.is_empty() || (full.len() < MOST_WAITING && self.is_to_be_written(&full)) {
            return Ok(());
        }
        // What is carried over goes to another log, so that the ones before can be dropped.
        self.tools.log.begin_next(self)?;
        let frozen = self.freeze_all(&full)?;
        // Nothing is sealed before it is decided: a mark whose sync fails is undone in the journal.
        self.sync_log()?;
        let values = self.write_values(&frozen)?;
        let runs = self.write_runs(&frozen).inspect_err(|_| self.remove_values(&values))?;
        self.publish_sealed(&runs, &values, &full)?;
        self.tools.journal.sealed(&full);
        self.drop_frozen(&full, frozen);
        events::sealed(&self.path(), full.len());
        if self.maintenance.log_ended.swap(false, AcqRel) {
            self.schedule_log();
        }
        self.drop_replaced();
        self.schedule_merge();
        self.grow_if_due();
        Ok(())
    }

    /// Ends the unsealed records of the segments `full`, shard by shard, and carries over claims and
    /// tombstones. Returns what is frozen, in the order of the shards.
    fn freeze_all(&self, full: &[u64]) -> Result<Vec<Arc<Active>>> {
        let mut frozen = Vec::new();
        for index in 0..self.shards.len() {
            let mut shard = self.shards[index].lock();
            // Also while the store is being closed: what is suspect is sealed then.
            self.adopt(&mut shard);
            if shard.active.as_ref().is_some_and(|active| full.contains(&active.segment.id)) {
                shard.freeze();
            }
            let mut call = Call::default();
            let carried = shard.carry_over(&self.tools, &mut call);
            frozen.extend(shard.frozen.iter().filter(|f| full.contains(&f.segment.id)).cloned());
            drop(shard);
            // Not `finish`: this job is the sealing that a new segment would ask for, and it syncs the
            // log when it has come to the end.
            self.tools.journal.release(call.reservation);
            if call.began_segment {
                self.schedule_space();
                self.schedule_seal();
            }
            carried?;
        }
        Ok(frozen)
    }

    /// Writes what is frozen as one sealed part a slice.
    fn write_runs(&self, frozen: &[Arc<Active>]) -> Result<Vec<Arc<Run>>> {
        let mut keys_of = BTreeMap::<u64, u64>::new();
        for active in frozen {
            for (slice, keys) in active.keys_by_slice() {
                *keys_of.entry(slice).or_default() += keys;
            }
        }
        let catalog = self.catalog();
        let mut runs = Vec::new();
        for (slice, keys) in keys_of.into_iter().filter(|(slice, _)| catalog.is_live(*slice)) {
            let file = self.ledger.next_file();
            match self.write_run(frozen, file, slice, keys) {
                Ok(run) => runs.extend(run.map(Arc::new)),
                Err(error) => {
                    let files = runs.iter().map(|run| run.file).chain([file]);
                    files.for_each(|file| self.remove_file(Kind::Run, file));
                    return Err(error);
                }
            }
        }
        Ok(runs)
    }

    /// `None` when nothing is left of the slice.
    fn write_run(
        &self,
        frozen: &[Arc<Active>],
        file: u64,
        slice: u64,
        keys: u64,
    ) -> Result<Option<Run>> {
        let mut writer = RunWriter::create(self.ledger.storage(), file, slice, keys)?;
        let (mut digests, mut scratch) = (Vec::<Digest>::new(), Vec::new());
        // Shards are ranges of digests in ascending order; several frozen sets of one shard follow
        // each other and are sorted together.
        let bits = self.config.shard_bits;
        let (mut shard, mut found) = (0, 0);
        for active in frozen {
            let of_slice = active.chunks().iter().filter(|(_, s)| *s == slice);
            for (number, _) in of_slice {
                for digest in chunk::digests(active.segment.chunk(*number)) {
                    if digest.shard(bits) != shard {
                        sort::sort_unique(&mut digests, &mut scratch);
                        writer.push_all(&digests)?;
                        digests.clear();
                        shard = digest.shard(bits);
                    }
                    digests.push(digest);
                    found += 1;
                }
            }
        }
        sort::sort_unique(&mut digests, &mut scratch);
        writer.push_all(&digests)?;
        let withdrawn: u64 = frozen.iter().map(|active| active.withdrawn()).sum();
        if found + withdrawn < keys {
            // The kernel could not write pages back, and has dropped them.
            let name = frozen.first().map_or(0, |active| active.segment.id);
            let path = self.ledger.storage().path(&names::numbered(Kind::Journal, name));
            self.note_hole(&self.catalog(), slice, &Error::corrupt(path, "records are missing"))?;
        }
        if found == 0 {
            drop(writer);
            self.remove_file(Kind::Run, file);
            return Ok(None);
        }
        writer.finish(self.header.store).map(Some)
    }

    /// Names the runs in the manifest instead of the segments, then shows them to the shards.
    fn publish_sealed(
        &self,
        runs: &[Arc<Run>],
        values: &[Arc<Values>],
        sealed: &[u64],
    ) -> Result<()> {
        let mut unsealed = self.tools.journal.unsealed();
        unsealed.retain(|id| !sealed.contains(id));
        let logs = self.tools.log.droppable(&unsealed);
        let covered_ns = self.covered_by(sealed);
        let refreshed = self.refreshed_in(sealed);
        let unsent = self.unsent(sealed);
        // A file has its name before the manifest names it.
        self.ledger.storage().sync_names()?;
        self.ledger.update(|manifest| {
            // Looked at here, because nothing may fail between this and showing the files.
            if let Some(owner) = manifest.owner.as_mut().filter(|_| self.are_unsent(unsent)) {
                owner.unsent.extend(runs.iter().map(|run| run.file));
            }
            for (slice, keys) in refreshed {
                manifest.add_refreshed(slice, keys);
            }
            manifest.journals.retain(|id| !sealed.contains(id));
            manifest.runs.extend(runs.iter().map(|run| entry(run)));
            manifest.values.extend(values.iter().map(|values| values_entry(values)));
            manifest.logs.retain(|log| !logs.contains(&log.file));
            manifest.covered_ns = manifest.covered_ns.max(covered_ns);
            manifest.anchor = self.time.anchor(0);
        })?;
        self.tools.log.dropped(&logs);
        self.change_slices(|slice| slice.extend(runs, values));
        Ok(())
    }

    /// Notes which segment is filled now.
    pub(super) fn note_segment(&self) {
        let now_ns = self.time.now();
        let Some(current) = self.tools.journal.unsealed().last().copied() else { return };
        let mut seen = self.maintenance.seen.lock();
        match seen.last_mut() {
            Some((at, segment)) if *segment == current => *at = now_ns,
            _ => seen.push((now_ns, current)),
        }
    }

    /// The last instant at which one of the segments `sealed` was known to be filled: whatever was
    /// acknowledged before is sealed with them.
    fn covered_by(&self, sealed: &[u64]) -> i64 {
        let mut seen = self.maintenance.seen.lock();
        let last = seen.iter().rposition(|(_, segment)| sealed.contains(segment));
        let Some(last) = last else { return i64::MIN };
        let (covered_ns, _) = seen[last];
        seen.drain(..=last);
        covered_ns
    }

    /// Keys that were refreshed in the segments `sealed`, by the live slices that held them before.
    fn refreshed_in(&self, sealed: &[u64]) -> BTreeMap<u64, u64> {
        let catalog = self.catalog();
        let mut refreshed = BTreeMap::<u64, u64>::new();
        for shard in &self.shards {
            for (slice, keys) in shard.lock().refreshed_in(sealed) {
                if catalog.is_live(slice) {
                    *refreshed.entry(slice).or_default() += keys;
                }
            }
        }
        refreshed
    }

    /// Lets go of what was sealed.
    fn drop_frozen(&self, sealed: &[u64], frozen: Vec<Arc<Active>>) {
        for index in 0..self.shards.len() {
            if let Ok(mut shard) = self.enter(index) {
                shard.frozen.retain(|active| !sealed.contains(&active.segment.id));
                shard.forget_refreshed(sealed);
            }
        }
        for active in frozen.into_iter().filter_map(Arc::into_inner) {
            self.tools.recycle(active.into_index());
        }
        sealed.iter().for_each(|id| self.remove_file(Kind::Journal, *id));
    }
}

pub(super) fn entry(run: &Run) -> RunEntry {
    RunEntry { file: run.file, slice: run.slice, keys: run.keys, content: run.content }
}
