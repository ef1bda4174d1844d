//! Work in the background: sealing segments, dropping what has expired.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::Engine;
use super::values::values_entry;
use crate::catalog::{Catalog, Slice};
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
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, RwLock};
use crate::telemetry::events;
use crate::worker::{self, Heartbeat, Lane};

/// Full segments that may wait to be sealed in a store with a hard limit.
const MOST_WAITING: usize = 2;

#[derive(Default)]
pub(super) struct Maintenance {
    space: Job,
    pub(super) seal: Job,
    pub(super) merge: Job,
    pub(super) rebuild: Job,
    upkeep: Job,
    log: Job,
    /// A log was ended: the next one is due.
    pub(super) log_ended: AtomicBool,
    /// A sync of the journal failed, so what the disk has of it is not known: it is not synced again,
    /// but sealed into new files.
    pub(super) journal_suspect: AtomicBool,
    /// Files of filters that the kernel could not write back, and the manifest still names.
    pub(super) filters_suspect: Mutex<Vec<u64>>,
    /// Heartbeats so far.
    pub(super) beats: AtomicU64,
    /// Whether the kernel could write back what is in maps is to be looked at.
    pub(super) look_due: AtomicBool,
    /// When the journal was looked at, and which segment was filled then.
    seen: Mutex<Vec<(i64, u64)>>,
    /// Jobs that were submitted and have not ended.
    pending: AtomicUsize,
    /// Held by jobs while they touch files; closing takes it whole.
    pub(super) gate: RwLock<()>,
    /// The store is closing: jobs end early.
    pub(super) stop: AtomicBool,
    /// Recovery is over: jobs may begin.
    pub(super) ready: AtomicBool,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Catalogs that were replaced. Whoever lets go of one last unmaps the files of what has expired,
    /// which takes milliseconds: that is done here.
    replaced: Mutex<Vec<Arc<Catalog>>>,
    /// The last rebuild of filters did not come to its end.
    pub(super) rebuild_failed: AtomicBool,
    /// Keys that the filters are sized for.
    pub(super) filter_keys: AtomicU64,
}

/// A kind of job: in the queue at most once, running at most once.
#[derive(Default)]
pub(super) struct Job {
    queued: AtomicBool,
    running: Mutex<()>,
}

impl Maintenance {
    pub(super) fn with_filters_for(keys: u64) -> Self {
        Maintenance { filter_keys: AtomicU64::new(keys), ..Maintenance::default() }
    }

    pub(super) fn errors(&self) -> (u64, Option<String>) {
        (self.errors.load(Relaxed), self.last_error.lock().clone())
    }
}

type Work = fn(&Arc<Engine>) -> Result<()>;

impl Engine {
    fn schedule(&self, lane: Lane, job: fn(&Maintenance) -> &Job, work: Work) {
        let busy = &self.maintenance;
        if !busy.ready.load(Acquire) || busy.stop.load(Acquire) || self.me.strong_count() == 0 {
            return;
        }
        if job(busy).queued.swap(true, AcqRel) {
            return;
        }
        busy.pending.fetch_add(1, AcqRel);
        let engine = self.me.clone();
        let run = move || {
            let Some(engine) = engine.upgrade() else { return };
            let busy = &engine.maintenance;
            {
                let _one = job(busy).running.lock();
                job(busy).queued.store(false, Release);
                let _gate = busy.gate.read();
                if !busy.stop.load(Acquire)
                    && let Err(error) = work(&engine)
                {
                    engine.note_background_error(&error);
                }
            }
            busy.pending.fetch_sub(1, AcqRel);
        };
        worker::submit(lane, Box::new(run));
    }

    pub(super) fn note_background_error(&self, error: &Error) {
        if !matches!(error, Error::Closed) {
            events::background_error(&self.path(), error);
            self.maintenance.errors.fetch_add(1, Relaxed);
            *self.maintenance.last_error.lock() = Some(error.to_string());
        }
    }

    /// Has the next segments made ready.
    pub(super) fn schedule_space(&self) {
        let work: Work = |engine| engine.tools.journal.prepare_spares(engine.most_spares);
        self.schedule(Lane::Space, |m| &m.space, work);
    }

    pub(super) fn schedule_seal(&self) {
        self.schedule(
            Lane::Seal,
            |m| &m.seal,
            |engine| {
                let looked = engine.look_at_maps();
                engine.seal_due().and(looked)
            },
        );
    }

    /// Has full segments sealed. Where memory is bounded, who fills segments faster than they are
    /// sealed seals some himself.
    #[cold]
    pub(super) fn begin_sealing(&self) {
        self.schedule_space();
        self.schedule_seal();
        let busy = &self.maintenance;
        let limited = self.tools.quota.is_limited() && busy.ready.load(Acquire);
        if limited && self.tools.journal.full_segments().len() >= MOST_WAITING {
            let _one = busy.seal.running.lock();
            let _gate = busy.gate.read();
            if !busy.stop.load(Acquire)
                && let Err(error) = self.seal_due()
            {
                self.note_background_error(&error);
            }
        }
    }

    pub(super) fn schedule_merge(&self) {
        self.schedule(Lane::Bulk, |m| &m.merge, |engine| engine.merge_due());
    }

    pub(super) fn schedule_rebuild(&self) {
        self.schedule(Lane::Bulk, |m| &m.rebuild, |engine| engine.rebuild_due());
    }

    pub(super) fn schedule_upkeep(&self) {
        self.schedule(Lane::Seal, |m| &m.upkeep, |engine| engine.drop_expired());
    }

    pub(super) fn schedule_log(&self) {
        self.schedule(Lane::Space, |m| &m.log, |engine| engine.keep_log());
    }

    /// Waits until no background work is due.
    pub(crate) fn settle(&self) {
        if self.origin.is_elsewhere() {
            return;
        }
        self.schedule_look();
        while self.maintenance.pending.load(Acquire) > 0 {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }

    pub(super) fn stopping(&self) -> Result<()> {
        if self.maintenance.stop.load(Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

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
        let unsent = self.is_unsent(sealed);
        // A file has its name before the manifest names it.
        self.ledger.storage().sync_names()?;
        self.ledger.update(|manifest| {
            if let Some(owner) = manifest.owner.as_mut().filter(|_| unsent) {
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
        self.name_unsent(runs, sealed)?;
        self.change_slices(|slice| slice.extend(runs, values));
        Ok(())
    }

    /// Notes which segment is filled now.
    fn note_segment(&self) {
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

    /// Keeps a catalog that was replaced until the background lets go of it.
    pub(super) fn keep_replaced(&self, catalog: Arc<Catalog>) {
        self.maintenance.replaced.lock().push(catalog);
    }

    /// Lets go of the catalogs that no shard works with any more.
    pub(super) fn drop_replaced(&self) {
        for index in 0..self.shards.len() {
            drop(self.enter(index));
        }
        let mut replaced = self.maintenance.replaced.lock();
        let unused = replaced.extract_if(.., |catalog| Arc::strong_count(catalog) == 1);
        let unused: Vec<_> = unused.collect();
        drop(replaced);
        drop(unused);
    }

    /// Publishes a catalog with other sealed parts.
    pub(super) fn change_slices(&self, change: impl Fn(&mut Slice)) {
        let mut window = self.window.write();
        let now_ns = self.catalog_now(&window);
        self.publish(&mut window, now_ns, |catalog| catalog.slices.iter_mut().for_each(change));
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

    /// Removes a file that the manifest no longer names. Should that fail, the next open does it.
    pub(super) fn remove_file(&self, kind: Kind, id: u64) {
        let _ = self.ledger.storage().remove(&names::numbered(kind, id));
    }

    /// Drops slices that have expired from the manifest, and their files.
    fn drop_expired(&self) -> Result<()> {
        let catalog = self.catalog();
        // The beginning of the newest slice, which in event time may be in the future.
        let began_ns = catalog.slices.last().map_or(i64::MIN, |slice| slice.start_ns);
        let now_ns = began_ns.min(self.window_now());
        let horizon = now_ns.saturating_sub(self.config.window_ns);
        let eras = {
            let mut window = self.window.write();
            window.timeline.forget_expired(now_ns);
            window.timeline.eras.clone()
        };
        // The files go first, which makes room for the manifest on a full disk; an open does not
        // miss parts that have expired.
        let expired = self.ledger.read(|manifest| {
            let expired = manifest.runs.iter().filter(|run| !catalog.is_live(run.slice));
            expired.map(|run| run.file).collect::<Vec<_>>()
        });
        expired.iter().for_each(|file| self.remove_file(Kind::Run, *file));
        self.remove_expired_values(&catalog);
        self.ledger.update(|manifest| {
            manifest.runs.retain(|run| catalog.is_live(run.slice));
            manifest.values.retain(|values| catalog.is_live(values.slice));
            manifest.refreshed.retain(|refreshed| catalog.is_live(refreshed.slice));
            if let Some(owner) = &mut manifest.owner {
                owner.unsent.retain(|file| !expired.contains(file));
            }
            manifest.eras = eras;
            manifest.anchor = self.time.anchor(0);
            manifest.holes.retain(|hole| hole.to_ns > horizon);
        })?;
        self.drop_replaced();
        self.schedule_merge();
        Ok(())
    }
}

pub(super) fn entry(run: &Run) -> RunEntry {
    RunEntry { file: run.file, slice: run.slice, keys: run.keys }
}

impl Heartbeat for Engine {
    fn heartbeat(&self) {
        self.publish_meters();
        if self.is_closed() || !self.maintenance.ready.load(Acquire) {
            return;
        }
        if self.tick().is_err() {
            return;
        }
        self.time.record_anchor();
        self.note_segment();
        // What failed before is tried again.
        self.schedule_space();
        if !self.tools.journal.full_segments().is_empty() {
            self.schedule_seal();
        }
        if self.maintenance.rebuild_failed.load(Acquire) {
            self.schedule_rebuild();
        }
        self.look_now_and_then();
        if let Some(owner) = self.owned.get()
            && let Err(error) = self.look_at_foreign(owner)
        {
            self.note_background_error(&error);
        }
    }
}
