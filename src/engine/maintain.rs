//! Work in the background: what is due and when, and dropping what has expired.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::Engine;
use crate::catalog::{Catalog, Slice};
use crate::error::{Error, Result};
use crate::format::names::{self, Kind};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, RwLock};
use crate::telemetry::events;
use crate::worker::{self, Heartbeat, Lane};

/// Full segments that may wait to be sealed in a store with a hard limit.
pub(super) const MOST_WAITING: usize = 2;

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
    pub(super) seen: Mutex<Vec<(i64, u64)>>,
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
