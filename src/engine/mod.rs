//! The conductor: time, rotation, and the calls of the public handles.

mod batch;
mod claims;
mod close;
mod event;
mod exclusive;
mod group;
mod kept;
mod later;
mod legacy;
mod logging;
mod maintain;
mod merging;
#[cfg(all(test, loom))]
mod models;
mod open;
mod rebuild;
mod recover;
mod report;
mod seal;
mod shared;
mod time;
mod transfer;
mod values;
mod watching;
mod written_back;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use crossbeam_utils::CachePadded;

use crate::catalog::{Catalog, Timeline};
use crate::config::{Config, OnOutage};
use crate::digest::{Digest, KeyHasher};
use crate::error::{Error, Result};
use crate::format::header::StoreHeader;
use crate::ledger::Ledger;
use crate::shadow::LetThrough;
use crate::shard::{Call, Shard, Tools};
use crate::stats::RecoveryReport;
use crate::storage::Origin;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, RwLock};
use crate::telemetry::{StoreMeters, events};
use crate::time::Timestamp;
use crate::verdict::Verdict;

pub(crate) use claims::{Attempt, Grant, Wish};
pub(crate) use legacy::Named;
pub(crate) use open::{open_dir, open_in_memory, read_header, read_manifest};
#[cfg(feature = "test-storage")]
pub(crate) use open::{open_dir_on_boot, open_simulated};
pub(crate) use rebuild::FilterSet;
pub(crate) use recover::in_order;
pub(crate) use shared::Held;
pub(crate) use transfer::head_of;

/// An open store.
pub(crate) struct Engine {
    /// Itself, for background jobs.
    me: Weak<Engine>,
    /// The process that opened it, marked with the mode of time.
    origin: Origin,
    config: Config,
    header: StoreHeader,
    ledger: Arc<Ledger>,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Where each shard's filter lies, for prefetches that take no lock.
    hints: Box<[CachePadded<FilterHint>]>,
    tools: Tools,
    /// Segments that are made ready in advance, at most.
    most_spares: usize,
    time: time::EngineTime,
    /// Version of the newest catalog; shards that have an older one take it over.
    version: CachePadded<AtomicU64>,
    window: RwLock<Window>,
    claims: claims::Claims,
    maintenance: maintain::Maintenance,
    recovery: Mutex<RecoveryReport>,
    meters: StoreMeters,
    let_through: LetThrough,
    /// Keys of before.
    legacy: legacy::Legacy,
    /// Wait in place of futures.
    helpers: Arc<later::helpers::Helpers>,
    closed: AtomicBool,
    /// The authority, once it was found.
    shared: OnceLock<Box<shared::Shared>>,
    /// The authority whose space this store alone writes, once it was found.
    owned: OnceLock<Box<exclusive::Owner>>,
}

/// How time is cut up, and the newest snapshot of it.
struct Window {
    timeline: Timeline,
    catalog: Arc<Catalog>,
}

/// Address and size of a filter. May be out of date: a prefetch of any address is harmless.
#[derive(Default)]
struct FilterHint {
    base: AtomicUsize,
    blocks: AtomicU64,
}

/// The marks of an engine's origin: which time the window follows, and whether an authority decides.
const CLOCK_TIME: usize = 1;
const EVENT_TIME: usize = 2;
/// The clock's too.
const SHARED_TIME: usize = 3;
/// The clock's, and an authority has to be asked first. A store that is the only writer of its space has
/// the mark of the clock while it does not have to.
const OWNED_TIME: usize = 4;

const fn mark(event_time: bool) -> usize {
    if event_time { EVENT_TIME } else { CLOCK_TIME }
}

impl Engine {
    pub(crate) fn root_hasher(&self) -> KeyHasher {
        KeyHasher::root(self.header.digest, &self.header.secret)
    }

    pub(crate) fn scope_hasher(&self, name: &[u8]) -> KeyHasher {
        KeyHasher::scope(self.header.digest, &self.header.secret, name)
    }

    /// Locks a shard and brings it up to date.
    #[inline(always)]
    fn enter(&self, index: usize) -> Result<MutexGuard<'_, Shard>> {
        let mut shard = self.shards[index].lock();
        self.update(&mut shard)?;
        Ok(shard)
    }

    #[inline(always)]
    fn update(&self, shard: &mut Shard) -> Result<()> {
        if shard.closed {
            return Err(Error::Closed);
        }
        self.adopt(shard);
        Ok(())
    }

    #[inline(always)]
    fn adopt(&self, shard: &mut Shard) {
        if shard.catalog.version != self.version.load(Acquire) {
            shard.adopt(&self.catalog(), &self.tools.quota);
        }
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.window.read().catalog)
    }

    fn shard_of(&self, digest: Digest) -> usize {
        digest.shard(self.config.shard_bits)
    }

    /// What has to happen after a call that took chunks.
    #[inline(always)]
    fn finish(&self, mut call: Call) -> Result<()> {
        let mut synced = Ok(());
        if call.epoch | call.wait > 0 {
            synced = self.finish_logged(&mut call);
        }
        if call.began_segment {
            self.begin_sealing();
        }
        self.tools.journal.release(call.reservation);
        synced
    }

    /// Begins the slices that are due. Refuses a forked child.
    #[inline(always)]
    fn tick(&self) -> Result<()> {
        match self.origin.mark() {
            CLOCK_TIME | SHARED_TIME | OWNED_TIME => self.tick_clock(),
            EVENT_TIME => {}
            _ => return Err(Error::Forked),
        }
        Ok(())
    }

    /// Begins the slices that are due by the clock.
    #[inline(always)]
    fn tick_clock(&self) {
        if self.time.is_due() {
            self.rotate(self.time.now());
        }
    }

    /// Publishes the window as of `now_ns` (event time: as of that watermark).
    #[cold]
    fn rotate(&self, now_ns: i64) {
        let mut window = self.window.write();
        if now_ns < window.catalog.valid_until_ns {
            self.look_at_lease(&window);
            return;
        }
        // The anchor goes first: after a crash, time never falls behind a slice that was begun.
        self.time.record_anchor();
        self.publish(&mut window, now_ns, |_| {});
        let slice = window.catalog.current;
        self.look_at_lease(&window);
        drop(window);
        events::rotated(&self.path(), slice);
        self.schedule_upkeep();
    }

    /// Replaces the catalog: sealed parts as they were, changed by `change`.
    fn publish(&self, window: &mut Window, now_ns: i64, change: impl FnOnce(&mut Catalog)) {
        let old = Arc::clone(&window.catalog);
        let mut catalog = window.timeline.catalog(old.version + 1, now_ns, |slice| {
            if let Some(before) = old.slice(slice.sequence) {
                (slice.runs, slice.values) = (before.runs.clone(), before.values.clone());
            }
        });
        self.tools.quota.expire(catalog.slices[0].sequence);
        change(&mut catalog);
        let (version, valid_until_ns) = (catalog.version, catalog.valid_until_ns);
        window.catalog = Arc::new(catalog);
        self.keep_replaced(old);
        self.version.store(version, std::sync::atomic::Ordering::Release);
        // Last: who finds that nothing is due any more must find the new version, or a key would go
        // to a slice that is over and be forgotten early.
        self.set_due(valid_until_ns);
    }

    /// Runs `work` on the shard of `digest`. When the store is full, keys that have expired are
    /// counted out everywhere and the work is tried once more.
    #[inline(always)]
    fn with_shard<T>(
        &self,
        digest: Digest,
        work: impl FnMut(&mut Shard, &mut Call) -> Result<T>,
    ) -> Result<T> {
        self.with_call(self.begin()?, digest, work)
    }

    /// [`Engine::with_shard`] for a call that marks nothing: it answers also when nothing can be
    /// marked.
    fn read_shard<T>(
        &self,
        digest: Digest,
        work: impl FnMut(&mut Shard, &mut Call) -> Result<T>,
    ) -> Result<T> {
        self.with_call(Call::default(), digest, work)
    }

    #[inline(always)]
    fn with_call<T>(
        &self,
        mut call: Call,
        digest: Digest,
        mut work: impl FnMut(&mut Shard, &mut Call) -> Result<T>,
    ) -> Result<T> {
        let index = self.shard_of(digest);
        let mut result = self.enter(index).and_then(|mut shard| work(&mut shard, &mut call));
        if let Err(Error::Full { .. }) = result {
            result = self.once_more(index, &mut call, &mut work);
        }
        let synced = self.finish(call);
        let answer = result?;
        synced.map(|()| answer)
    }

    #[cold]
    #[inline(never)]
    fn once_more<T>(
        &self,
        index: usize,
        call: &mut Call,
        work: &mut dyn FnMut(&mut Shard, &mut Call) -> Result<T>,
    ) -> Result<T> {
        self.count_out_expired();
        self.enter(index).and_then(|mut shard| work(&mut shard, call))
    }

    #[cold]
    fn count_out_expired(&self) {
        for index in 0..self.shards.len() {
            drop(self.enter(index));
        }
    }

    /// Refuses calls of the other mode of time, and those of a forked child.
    #[inline(always)]
    fn require_event_time(&self, wanted: bool, call: &'static str) -> Result<()> {
        if self.origin.mark() == mark(wanted) { Ok(()) } else { Err(self.refusal(wanted, call)) }
    }

    #[cold]
    #[inline(never)]
    fn refusal(&self, needs_event_time: bool, call: &'static str) -> Error {
        let forked = self.origin.is_elsewhere();
        if forked { Error::Forked } else { Error::Mode { call, needs_event_time } }
    }

    /// A forked child has no threads of the store, and its writes would meet those of its parent.
    /// Asked before any lock: another thread may have held it when the child was forked.
    fn refuse_forked(&self) -> Result<()> {
        if self.origin.is_elsewhere() { Err(Error::Forked) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn observe(&self, digest: Digest, on_outage: OnOutage) -> Result<Verdict> {
        // First of all: the miss takes longer than everything else.
        self.prefetch(digest);
        if !self.is_alone() {
            return self.observe_otherwise(digest, on_outage);
        }
        self.observe_alone(digest)
    }

    #[inline(always)]
    fn observe_alone(&self, digest: Digest) -> Result<Verdict> {
        let mut call = self.begin()?;
        let mut shard = match self.enter(self.shard_of(digest)) {
            Ok(shard) => shard,
            Err(error) => return self.finish(call).and(Err(error)),
        };
        let target = shard.current();
        match shard.mark_if_new(&self.tools, &mut call, digest, target) {
            Ok(None) => {
                shard.count_new(target, 1);
                drop(shard);
                self.finish(call).map(|()| Verdict::New)
            }
            suspected => self.observe_suspected(shard, call, digest, suspected.map(|_| ())),
        }
    }

    /// An observation that not this store alone decides, or that it refuses.
    #[cold]
    #[inline(never)]
    fn observe_otherwise(&self, digest: Digest, on_outage: OnOutage) -> Result<Verdict> {
        match self.admit(&[digest], on_outage)? {
            Some(shared) => self.observe_shared(shared, digest, on_outage),
            None if self.config.event_time => Err(self.refusal(false, "observe")),
            None => self.observe_alone(digest),
        }
    }

    /// The rest of [`Engine::observe`], for keys that the filter suspects and for errors.
    #[inline(never)]
    fn observe_suspected(
        &self,
        mut shard: MutexGuard<'_, Shard>,
        mut call: Call,
        digest: Digest,
        so_far: Result<()>,
    ) -> Result<Verdict> {
        let mut decide = |shard: &mut Shard| {
            let target = shard.current();
            shard.observe(&self.tools, &mut call, digest, target, || self.time.now())
        };
        let mut verdict = so_far.and_then(|()| decide(&mut shard));
        drop(shard);
        if let Err(Error::Full { .. }) = verdict {
            self.count_out_expired();
            let shard = self.enter(self.shard_of(digest));
            verdict = shard.and_then(|mut shard| decide(&mut shard));
        }
        let synced = self.finish(call);
        let verdict = verdict?;
        synced.map(|()| verdict)
    }

    pub(crate) fn contains(&self, digest: Digest, on_outage: OnOutage) -> Result<bool> {
        if !self.is_alone() {
            return self.contains_otherwise(digest, on_outage);
        }
        self.is_live(digest)
    }

    #[cold]
    #[inline(never)]
    fn contains_otherwise(&self, digest: Digest, on_outage: OnOutage) -> Result<bool> {
        let Some(shared) = self.admit(&[digest], on_outage)? else { return self.is_live(digest) };
        let found = self.contains_shared(shared, &[digest], on_outage)?;
        found.into_iter().next().ok_or(Error::Closed)
    }

    /// [`Engine::contains`] as far as this store knows.
    #[inline(always)]
    fn is_live(&self, digest: Digest) -> Result<bool> {
        self.tick()?;
        self.read_shard(digest, |shard, call| {
            let mask = shard.suspects(digest);
            let found = shard.find(digest, mask)?.is_some();
            if found {
                shard.wait_for(&self.tools.log, call, digest);
            }
            Ok(found)
        })
    }

    pub(crate) fn forget(&self, digest: Digest) -> Result<bool> {
        if !self.is_alone()
            && let Some(shared) = self.admit(&[digest], OnOutage::Fail)?
        {
            return self.forget_shared(shared, digest);
        }
        // A lost tombstone would be a false `Duplicate`: it is synced at every level.
        let call = self.begin_logged()?;
        let forgotten =
            self.with_call(call, digest, |shard, call| shard.forget(&self.tools, call, digest))?;
        if forgotten {
            self.forget_at_authority(digest);
        }
        self.claims.changed();
        Ok(forgotten)
    }

    /// Fetches the filter's lines of a digest.
    #[inline]
    pub(crate) fn prefetch(&self, digest: Digest) {
        let hint = &self.hints[self.shard_of(digest)];
        let base = hint.base.load(Relaxed);
        let block = ((digest.lo >> 32) * hint.blocks.load(Relaxed)) >> 32;
        crate::storage::prefetch_block(base + block as usize * crate::filter::BLOCK);
    }

    /// Tells prefetches where a shard's filter is now.
    fn set_hint(&self, index: usize, shard: &Shard) {
        if let Some(filter) = &shard.filter {
            self.hints[index].base.store(filter.region().address(), Relaxed);
            self.hints[index].blocks.store(u64::from(filter.blocks()), Relaxed);
        }
    }

    pub(crate) fn guaranteed_since(&self) -> Timestamp {
        let ticked = self.tick();
        let now = self.window_now();
        // It answers nothing here, or what was acknowledged may be lost until it is sealed.
        if ticked.is_err() || self.is_journal_suspect() || self.is_owner_gone() {
            return Timestamp::from_unix_nanos(now);
        }
        let newest_hole = self.ledger.read(|manifest| {
            let holes = manifest.holes.iter().map(|hole| hole.to_ns);
            holes.fold(manifest.complete_since_ns, i64::max)
        });
        if self.owned.get().is_some() {
            let window_ns = now.saturating_sub(self.config.window_ns);
            return Timestamp::from_unix_nanos(newest_hole.min(now).max(window_ns));
        }
        if let Some(shared) = self.shared() {
            // Holes of what is assumed are written down in advance.
            let since_ns = newest_hole.max(shared.complete_since_ns()).min(now);
            let window_ns = now.saturating_sub(self.config.window_ns);
            return Timestamp::from_unix_nanos(since_ns.max(window_ns));
        }
        Timestamp::from_unix_nanos(newest_hole.max(now.saturating_sub(self.config.window_ns)))
    }

    /// A time inside the newest catalog: changing sealed parts does not rotate. In event time the
    /// newest slice may begin in the future.
    fn catalog_now(&self, window: &Window) -> i64 {
        self.window_now().min(window.catalog.valid_until_ns - 1)
    }

    /// The time that the window follows: the clock's, or the greatest event time so far.
    fn window_now(&self) -> i64 {
        if self.config.event_time { self.time.watermark() } else { self.time.now() }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    fn mark_closed(&self) -> bool {
        !self.closed.swap(true, AcqRel)
    }
}
