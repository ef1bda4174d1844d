//! Opening a store: header, manifest, time, files; then `recover` reads the journal back.

mod files;
mod identity;
mod salvage;
mod space;
mod trust;
mod values;

use std::path::Path;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::exclusive::{Initial, Taken};
use super::later::helpers::Helpers;
use super::legacy::Legacy;
use super::maintain::Maintenance;
use super::time::EngineTime;
use super::{Engine, FilterHint, SHARED_TIME, Window, claims, mark, recover};
use crate::catalog::{Catalog, Timeline};
use crate::config::{Config, Durability};
use crate::error::{Error, Result};
use crate::exact::run::Run;
use crate::exact::values::Values;
use crate::filter::{Columns, Filter};
use crate::format::clock::Maps;
use crate::format::header::StoreHeader;
use crate::format::manifest::Manifest;
use crate::format::names;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::log::{Level, Log};
use crate::plan::Sizes;
use crate::quota::Quota;
use crate::shadow::LetThrough;
use crate::shard::held::ClaimsHeld;
use crate::shard::{Shard, Tools};
use crate::stats::RecoveryReport;
use crate::storage::{DirStorage, HeapStorage, Origin, Storage};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, RwLock};
use crate::telemetry::{StoreMeters, events};
use crate::worker;
use files::sized_keys;
use identity::{create_header, geometry, new_manifest, refuse_mismatch, refuse_other_space};
pub(crate) use identity::{read_header, read_manifest};
use salvage::Loss;
pub(super) use salvage::{Source, open_if_there};

pub(crate) fn open_dir(config: Config, dir: &Path) -> Result<Arc<Engine>> {
    let storage = DirStorage::own(dir, config.lock_wait, config.any_filesystem)?;
    open(config, Arc::new(storage))
}

#[cfg(feature = "test-storage")]
pub(crate) fn open_simulated(
    config: Config,
    disk: &crate::storage::sim::SimDisk,
) -> Result<Arc<Engine>> {
    let storage = disk.storage();
    if !config.any_filesystem {
        crate::storage::refuse_unfit(&storage.path(""), disk.filesystem())?;
    }
    open(config, storage)
}

/// Opens a directory as if the machine had been booted anew.
#[cfg(feature = "test-storage")]
pub(crate) fn open_dir_on_boot(config: Config, dir: &Path, boot: [u8; 16]) -> Result<Arc<Engine>> {
    let mut storage = DirStorage::own(dir, config.lock_wait, config.any_filesystem)?;
    storage.set_boot_id(boot);
    open(config, Arc::new(storage))
}

pub(crate) fn open_in_memory(config: Config) -> Result<Arc<Engine>> {
    open(config, Arc::new(HeapStorage::default()))
}

/// What was found, while the store is being opened.
struct Opening {
    config: Config,
    storage: Arc<dyn Storage>,
    header: StoreHeader,
    manifest: Manifest,
    report: RecoveryReport,
    /// Boot and place are those of the last open: what was mapped then is as it was left.
    trusted: bool,
    /// Filters may lack what the kernel could not write back.
    filters_suspect: bool,
    /// Keys may have been refreshed: several slices hold them.
    refreshes: bool,
    /// The files lie where they lay at the last open: this is no copy.
    same_place: bool,
    /// Where unsealed records are read back from.
    source: Source,
    losses: Vec<Loss>,
}

fn open(config: Config, storage: Arc<dyn Storage>) -> Result<Arc<Engine>> {
    let header = match read_header(&*storage)? {
        Some(header) => header,
        None => create_header(&config, &*storage)?,
    };
    refuse_mismatch(&config, &header)?;
    let (manifest, created) = match read_manifest(&*storage, &header)? {
        Some(manifest) => (manifest, false),
        None => (new_manifest(&config, &header, level(config.durability, &*storage)), true),
    };
    refuse_other_space(&config, &manifest)?;
    let report = RecoveryReport { created, ..RecoveryReport::default() };
    let refreshes = config.refresh_on_duplicate
        || manifest.geometry.refresh_on_duplicate
        || !manifest.refreshed.is_empty();
    let mut opening = Opening {
        config,
        storage,
        header,
        manifest,
        report,
        trusted: false,
        filters_suspect: false,
        refreshes,
        same_place: false,
        source: Source::default(),
        losses: Vec::new(),
    };
    opening.follow_chain();
    opening.clear_leftovers()?;
    let clock = opening.clock_region()?;
    let read = opening.manifest.clone();
    opening.judge_trust(&clock)?;
    let acquirement = opening.take_space(&read)?;
    opening.choose_source()?;
    let time = opening.start_time(clock)?;
    let lossy = opening.is_lossy();
    opening.note_losses(&time);
    let mut owned = acquirement.map(|acquirement| opening.adopt_space(acquirement, &time, lossy));
    let timeline = opening.timeline(&time);
    let named = opening.manifest.runs.clone();
    let runs = opening.open_runs(&timeline, &time)?;
    let values = opening.open_values(&timeline, &time, &named, &runs)?;
    let filters = opening.open_filters()?;
    if owned.is_some() && opening.report.created {
        // Files of a store that begins anew are not named any more.
        opening.clear_leftovers()?;
    }
    opening.manifest.anchor = time.anchor(0);
    opening.publish(&timeline)?;
    owned.iter_mut().for_each(|(taken, _)| taken.provisional.is_published());
    let source = std::mem::take(&mut opening.source);
    let engine = opening.assemble(time, timeline, (&runs, &values), filters, owned.as_ref())?;
    let sent = owned.as_ref().is_some_and(|(taken, _)| taken.trusted);
    recover::replay(&engine, source, sent)?;
    begin(&engine, owned)?;
    Ok(engine)
}

/// What follows when everything is read back.
fn begin(engine: &Arc<Engine>, owned: Option<(Taken, Initial)>) -> Result<()> {
    // From here on nothing is read from maps of before that were suspect.
    engine.time.set_suspect(Maps::Journal, false);
    engine.time.set_suspect(Maps::Filters, false);
    // Models do the background work in threads of their own.
    if cfg!(not(all(test, loom))) {
        engine.begin_background();
        engine.begin_ticking()?;
        let watched: std::sync::Weak<Engine> = Arc::downgrade(engine);
        worker::watch(watched);
    }
    let connected = match owned {
        Some((taken, initial)) => engine.own(taken, &initial),
        None => engine.connect(),
    };
    engine.begin_legacy();
    if let Err(error) = connected {
        // The error that matters is that one.
        let _ = engine.close();
        return Err(error);
    }
    events::opened(&engine.path(), engine.config.shadow, &engine.recovery.lock());
    Ok(())
}

impl Opening {
    /// Says so if sealed files were changed by somebody else; the chain goes on from there.
    fn follow_chain(&mut self) {
        let sealed = self.manifest.sealed();
        let chain = &self.manifest.chain;
        if let Some(fault) = (!chain.is_empty()).then(|| chain.fault(&sealed)).flatten() {
            self.report.damage.push(format!("the manifest was edited: {fault}"));
            self.manifest.link(true);
        }
    }

    /// Slices go on as they were, or in a new era when their length changes.
    fn timeline(&mut self, time: &EngineTime) -> Timeline {
        let now_ns = if self.config.event_time { time.watermark() } else { time.now() };
        let mut timeline = Timeline {
            window_ns: self.manifest.geometry.window_ns,
            columns: Columns::for_slices(self.config.slices),
            eras: self.manifest.eras.clone(),
        };
        timeline.cut_expired(now_ns);
        timeline.window_ns = self.config.window_ns;
        let old = &self.manifest.geometry;
        if old.window_ns != self.config.window_ns {
            // What had expired under the old window cannot come back under the new one.
            let since = now_ns.saturating_sub(old.window_ns);
            self.manifest.complete_since_ns = self.manifest.complete_since_ns.max(since);
        }
        if old.slice_ns != self.config.slice_ns || old.window_ns != self.config.window_ns {
            // Event time may go on at the watermark, where the old slice is. After a crash it had
            // gone further than the record of it says, though not beyond that slice.
            let (last_ns, start_ns) = match self.config.event_time {
                false => (now_ns, now_ns),
                true if self.report.clean_close => (now_ns, now_ns + 1),
                true => {
                    let last_ns = timeline.end_of_slice(now_ns);
                    (last_ns, last_ns + 1)
                }
            };
            timeline.begin_era(last_ns, start_ns, self.config.slice_ns);
        }
        timeline.forget_expired(now_ns);
        timeline
    }

    /// Names this open in the manifest, before anything of it is written.
    fn publish(&mut self, timeline: &Timeline) -> Result<()> {
        self.manifest.geometry = geometry(&self.config);
        self.manifest.eras.clone_from(&timeline.eras);
        self.manifest.opens += 1;
        self.manifest.closed_ns = i64::MIN;
        self.manifest.sequence += 1;
        self.manifest.link(false);
        self.storage.replace(names::MANIFEST, &|stamp| self.manifest.encode(stamp))
    }

    /// Counts what is sealed.
    fn quota(&self, catalog: &Catalog) -> Quota {
        let quota = Quota::new(self.config.max_keys);
        for slice in &catalog.slices {
            let of_slice = self.manifest.refreshed.iter().filter(|r| r.slice == slice.sequence);
            let refreshed: u64 = of_slice.map(|refreshed| refreshed.keys).sum();
            let sealed: u64 = slice.runs.iter().map(|run| run.keys).sum();
            // A part that was lost may have held some of them.
            quota.found_sealed(slice.sequence, sealed.saturating_sub(refreshed));
        }
        quota
    }

    fn assemble(
        self,
        time: EngineTime,
        timeline: Timeline,
        (runs, values): (&[Arc<Run>], &[Arc<Values>]),
        filters: Vec<Option<Filter>>,
        owned: Option<&(Taken, Initial)>,
    ) -> Result<Arc<Engine>> {
        let now_ns = if self.config.event_time { time.watermark() } else { time.now() };
        let catalog = Arc::new(timeline.catalog(1, now_ns, |s| s.extend(runs, values)));
        time.set_due(catalog.valid_until_ns);
        let quota = self.quota(&catalog);
        let config = self.config;
        let sized = sized_keys(&config, &filters).max(config.expected_keys);
        let sizes = Sizes::of(&config, sized);
        let opens = self.manifest.opens;
        let ledger = Arc::new(Ledger::new(self.storage, self.manifest));
        let tools = tools(
            &config,
            &ledger,
            &sizes,
            (quota, self.refreshes, filters.len()),
            !values.is_empty(),
            owned.is_some(),
        );
        let maintenance = Maintenance::with_filters_for(sized);
        let shard = |(number, filter)| {
            let mut shard = Shard::new(number, Arc::clone(&catalog));
            shard.filter = filter;
            CachePadded::new(Mutex::new(shard))
        };
        let shards: Box<[_]> = filters.into_iter().enumerate().map(shard).collect();
        let origin = origin(&config, owned, &ledger)?;
        let hints = shards.iter().map(|_| CachePadded::new(FilterHint::default())).collect();
        let engine = Arc::new_cyclic(|me| Engine {
            me: me.clone(),
            origin,
            config,
            header: self.header,
            ledger,
            shards,
            hints,
            tools,
            most_spares: sizes.most_spares,
            time,
            version: CachePadded::new(AtomicU64::new(1)),
            window: RwLock::new(Window { timeline, catalog }),
            claims: claims::Claims::new(opens),
            maintenance,
            recovery: Mutex::new(self.report),
            meters: StoreMeters::default(),
            let_through: LetThrough::default(),
            legacy: Legacy::default(),
            helpers: Helpers::new(),
            closed: AtomicBool::new(false),
            shared: std::sync::OnceLock::new(),
            owned: std::sync::OnceLock::new(),
        });
        for (index, shard) in engine.shards.iter().enumerate() {
            engine.set_hint(index, &shard.lock());
        }
        Ok(engine)
    }
}

fn tools(
    config: &Config,
    ledger: &Arc<Ledger>,
    sizes: &Sizes,
    (quota, holds_refreshed, shards): (Quota, bool, usize),
    has_kept: bool,
    writes_behind: bool,
) -> Tools {
    let level = level(config.durability, ledger.storage());
    Tools {
        journal: Journal::new(Arc::clone(ledger), sizes.segment_chunks, writes_behind),
        log: Log::new(Arc::clone(ledger), level, sizes.log_bytes),
        quota,
        refresh_on_duplicate: config.refresh_on_duplicate,
        traces: config.trace,
        holds_refreshed,
        has_kept: AtomicBool::new(has_kept),
        claims_held: ClaimsHeld::new(shards),
        index_records: AtomicUsize::new(sizes.index_records),
        indexes: Mutex::default(),
    }
}

fn origin(config: &Config, owned: Option<&(Taken, Initial)>, ledger: &Ledger) -> Result<Origin> {
    if let Some((taken, _)) = owned {
        return Ok(taken.seat.origin());
    }
    let mark = if config.shared.is_some() { SHARED_TIME } else { mark(config.event_time) };
    Origin::here(mark).map_err(|e| Error::io("allocating memory for", ledger.storage().path(""), e))
}

/// What is logged.
fn level(durability: Durability, storage: &dyn Storage) -> Level {
    match durability {
        _ if !storage.is_lasting() => Level::Off,
        Durability::Process => Level::Tombstones,
        Durability::Interval(_) => Level::Interval,
        Durability::Sync => Level::Sync,
    }
}
