//! Opening a store: header, manifest, time, files; then `recover` reads the journal back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, RwLock};

use super::maintain::Maintenance;
use super::rebuild::FilterFile;
use super::time::{EngineTime, NO_WATERMARK};
use super::{Engine, FilterHint, Window, claims, recover};
use crate::catalog::Timeline;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exact::run::Run;
use crate::filter::{Columns, Filter, sizing};
use crate::format::header::{HeaderError, StoreHeader};
use crate::format::manifest::{Era, FilterEntry, Geometry, Hole, Manifest};
use crate::format::{VERSION, clock, names};
use crate::journal::{Journal, Segment};
use crate::ledger::Ledger;
use crate::plan::{Sizes, shard_blocks};
use crate::quota::Quota;
use crate::shard::{Shard, Tools};
use crate::stats::RecoveryReport;
use crate::storage::{DirStorage, HeapStorage, Region, Storage};
use crate::time::ClockSource;
use crate::{random, worker};

pub(crate) fn open_dir(config: Config, dir: &Path) -> Result<Arc<Engine>> {
    let storage = DirStorage::own(dir, config.lock_wait)?;
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
    /// The files lie where they lay at the last open: this is no copy.
    same_place: bool,
}

fn open(config: Config, storage: Arc<dyn Storage>) -> Result<Arc<Engine>> {
    let header = match read_header(&*storage)? {
        Some(header) => header,
        None => create_header(&config, &*storage)?,
    };
    refuse_mismatch(&config, &header)?;
    let (manifest, created) = match read_manifest(&*storage, &header)? {
        Some(manifest) => (manifest, false),
        None => (new_manifest(&config, &header), true),
    };
    let report = RecoveryReport { created, ..RecoveryReport::default() };
    let mut opening =
        Opening { config, storage, header, manifest, report, trusted: false, same_place: false };
    opening.clear_leftovers()?;
    let clock = opening.clock_region()?;
    opening.judge_trust()?;
    let time = opening.start_time(clock)?;
    opening.check_journals(&time)?;
    let timeline = opening.timeline(&time);
    let runs = opening.open_runs(&timeline, &time)?;
    let filters = opening.open_filters()?;
    opening.publish(&timeline)?;
    let engine = opening.assemble(time, timeline, &runs, filters)?;
    recover::replay(&engine)?;
    engine.begin_background();
    let watched: std::sync::Weak<Engine> = Arc::downgrade(&engine);
    worker::watch(watched);
    Ok(engine)
}

/// The header of an existing store.
pub(crate) fn read_header(storage: &dyn Storage) -> Result<Option<StoreHeader>> {
    let Some(bytes) = storage.read(names::STORE)? else { return Ok(None) };
    match StoreHeader::decode(&bytes) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderError::Newer(found)) => Err(Error::Version { found, supported: VERSION }),
        Err(HeaderError::Damaged(why)) => Err(Error::corrupt(storage.path(names::STORE), why)),
    }
}

fn create_header(config: &Config, storage: &dyn Storage) -> Result<StoreHeader> {
    let lost = storage
        .list()?
        .into_iter()
        .find(|name| name == names::MANIFEST || names::parse(name).is_some());
    if lost.is_some() {
        let path = storage.path(names::STORE);
        return Err(Error::corrupt(path, "it is missing, but files of a store are there"));
    }
    let mut store = [0; 16];
    random::fill(&mut store)?;
    let secret = match config.secret {
        Some(secret) => secret,
        None => {
            let mut secret = [0; 32];
            random::fill(&mut secret)?;
            secret
        }
    };
    let header = StoreHeader {
        version: VERSION,
        min_version: VERSION,
        store,
        digest: config.digest.unwrap_or_default(),
        event_time: config.event_time,
        secret,
        created_ns: config.clock.wall_nanos(),
    };
    storage.replace(names::STORE, &header.encode(), true)?;
    Ok(header)
}

fn refuse_mismatch(config: &Config, header: &StoreHeader) -> Result<()> {
    let mismatch = |field, detail: String| Err(Error::Mismatch { field, detail });
    if config.digest.is_some_and(|kind| kind != header.digest) {
        return mismatch("digest", format!("it has {}", header.digest.name()));
    }
    if config.secret.is_some_and(|secret| secret != header.secret) {
        return mismatch("secret", "its keys were digested with another one".into());
    }
    if config.event_time != header.event_time {
        return mismatch("event_time", format!("it has {}", header.event_time));
    }
    Ok(())
}

/// The manifest of an existing store; `None` when the store was never opened to the end.
pub(crate) fn read_manifest(
    storage: &dyn Storage,
    header: &StoreHeader,
) -> Result<Option<Manifest>> {
    let path = storage.path(names::MANIFEST);
    match storage.read(names::MANIFEST)? {
        Some(bytes) => Manifest::decode(&bytes, header.store)
            .map(Some)
            .map_err(|why| Error::corrupt(path, why)),
        None if storage.list()?.iter().any(|name| names::parse(name).is_some()) => {
            Err(Error::corrupt(path, "it is missing, but files of a store are there"))
        }
        None => Ok(None),
    }
}

fn geometry(config: &Config) -> Geometry {
    Geometry {
        window_ns: config.window_ns,
        slices: config.slices,
        slice_ns: config.slice_ns,
        shard_bits: config.shard_bits,
        expected_keys: config.expected_keys,
        false_positive_rate: config.false_positive_rate,
        max_keys: config.max_keys.unwrap_or(0),
        lease_ns: config.lease_ns,
        max_event_lead_ns: crate::time::nanos(config.max_event_lead),
        refresh_on_duplicate: config.refresh_on_duplicate,
    }
}

fn new_manifest(config: &Config, header: &StoreHeader) -> Manifest {
    // Slices of event time are counted from long ago, so that any first event has a place.
    let start_ns = if config.event_time { NO_WATERMARK } else { header.created_ns };
    Manifest {
        store: header.store,
        sequence: 0,
        geometry: geometry(config),
        next_file: 1,
        opens: 0,
        complete_since_ns: if config.event_time { i64::MIN } else { header.created_ns },
        holes: Vec::new(),
        eras: vec![Era { first: 1, start_ns, slice_ns: config.slice_ns, end_ns: i64::MAX }],
        journals: Vec::new(),
        runs: Vec::new(),
        filters: Vec::new(),
        boot_id: [0; 16],
        place: [0; 32],
        closed_ns: i64::MIN,
        close_error: String::new(),
    }
}

impl Opening {
    /// Deletes what interrupted work left behind, and sets aside what is not ours.
    fn clear_leftovers(&mut self) -> Result<()> {
        use names::Kind;
        for name in self.storage.list()? {
            let listed = match names::parse(&name) {
                Some((Kind::Journal, id)) => self.manifest.journals.contains(&id),
                Some((Kind::Run, id)) => self.manifest.runs.iter().any(|run| run.file == id),
                Some((Kind::Filter, id)) => self.manifest.filters.iter().any(|f| f.file == id),
                None if !names::is_ours(&name) => {
                    self.storage.set_aside(&name)?;
                    self.report.set_aside.push(name);
                    continue;
                }
                None => !name.ends_with(".tmp"),
            };
            if !listed {
                self.storage.remove(&name)?;
                self.report.leftovers_removed += 1;
            }
        }
        Ok(())
    }

    fn clock_region(&mut self) -> Result<Region> {
        if self.storage.list()?.iter().any(|name| name == names::CLOCK) {
            match self.storage.open(names::CLOCK, true) {
                Ok(region) if region.len() as u64 >= clock::LEN => return Ok(region),
                Err(error @ Error::Io { .. }) => return Err(error),
                _ => self.storage.remove(names::CLOCK)?,
            }
        }
        self.storage.create(names::CLOCK, clock::LEN)
    }

    fn judge_trust(&mut self) -> Result<()> {
        let (boot_id, place) = (ClockSource::system().boot_id(), self.storage.place()?);
        let same_boot = self.manifest.boot_id == boot_id;
        self.report.rebooted = !self.report.created && !same_boot;
        let failed = !self.manifest.close_error.is_empty();
        self.report.clean_close = self.manifest.closed_ns != i64::MIN && !failed;
        self.trusted = same_boot && self.manifest.place == place;
        // The device may have another number after a reboot.
        self.same_place = self.manifest.place[8..] == place[8..];
        if !self.manifest.close_error.is_empty() {
            self.report.close_error = Some(std::mem::take(&mut self.manifest.close_error));
        }
        self.manifest.boot_id = boot_id;
        self.manifest.place = place;
        Ok(())
    }

    /// Where time stands now. A hole is noted where the files may lack what was acknowledged.
    fn start_time(&mut self, region: Region) -> Result<EngineTime> {
        let newest_era = self.manifest.eras.last().map_or(i64::MIN, |era| era.start_ns);
        let floor = if self.config.event_time { i64::MIN } else { newest_era };
        let anchor = clock::Anchor::load(&region);
        let has_anchor = anchor.is_some();
        let clock_boot = self.config.clock.boot_id();
        self.report.rebooted |= anchor.is_some_and(|anchor| anchor.boot_id != clock_boot);
        let time = EngineTime::new(self.config.clock.clone(), region, floor);
        if self.report.created {
            return Ok(time);
        }
        let reason = if !has_anchor {
            self.trusted = false;
            Some("the record of time is lost")
        } else if !(self.trusted || self.report.clean_close && self.same_place) {
            Some("the files may lack what was not yet written to the disk")
        } else {
            None
        };
        if let Some(reason) = reason {
            self.note_hole(&time, reason);
        }
        Ok(time)
    }

    /// Nothing up to and including this instant is vouched for.
    fn note_hole(&mut self, time: &EngineTime, reason: &str) {
        let now_ns = if self.config.event_time { time.watermark() } else { time.now() };
        let (to_ns, reason) = (now_ns.saturating_add(1), reason.to_owned());
        self.report.damage.push(reason.clone());
        self.manifest.holes.push(Hole { from_ns: i64::MIN, to_ns, reason });
    }

    /// A damaged segment may have held tombstones, and a lost tombstone would be a false
    /// `Duplicate`: no key that was recorded before is trusted then. Its files are set aside.
    fn check_journals(&mut self, time: &EngineTime) -> Result<()> {
        let mut damage = None;
        for id in &self.manifest.journals {
            let name = names::numbered(names::Kind::Journal, *id);
            match Segment::open(&*self.storage, self.header.store, *id) {
                Ok(segment) => match segment.verify() {
                    Ok(()) => {}
                    Err(why) => damage = Some(format!("{name}: {why}")),
                },
                Err(error) if is_lost(&error) => damage = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let Some(reason) = damage else { return Ok(()) };
        self.note_hole(time, &format!("{reason}; all keys of before are set aside"));
        let journals = std::mem::take(&mut self.manifest.journals).into_iter();
        let journals = journals.map(|id| names::numbered(names::Kind::Journal, id));
        let runs = std::mem::take(&mut self.manifest.runs).into_iter();
        let runs = runs.map(|run| names::numbered(names::Kind::Run, run.file));
        for name in journals.chain(runs) {
            if self.storage.set_aside(&name).is_ok() {
                self.report.set_aside.push(name);
            }
        }
        // What the filter still shows of them only costs look-ups until it rotates away.
        Ok(())
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
            // Event time may go on at the watermark, where the old slice is.
            let start_ns = if self.config.event_time { now_ns + 1 } else { now_ns };
            timeline.begin_era(now_ns, start_ns, self.config.slice_ns);
        }
        timeline.forget_expired(now_ns);
        timeline
    }

    /// Maps the sealed parts of live slices; one that is damaged is set aside and leaves a hole.
    fn open_runs(&mut self, timeline: &Timeline, time: &EngineTime) -> Result<Vec<Arc<Run>>> {
        let now_ns = if self.config.event_time { time.watermark() } else { time.now() };
        let live = timeline.live(now_ns);
        let mut runs = Vec::new();
        for entry in std::mem::take(&mut self.manifest.runs) {
            let name = names::numbered(names::Kind::Run, entry.file);
            let Some(slice) = live.iter().find(|slice| slice.sequence == entry.slice) else {
                self.storage.remove(&name)?;
                continue;
            };
            match Run::open(&*self.storage, self.header.store, entry.file) {
                Ok(run) if run.slice == entry.slice => {
                    runs.push(Arc::new(run));
                    self.manifest.runs.push(entry);
                }
                Err(error) if !is_lost(&error) => return Err(error),
                lost => {
                    let reason = lost.err().map_or_else(
                        || format!("{name} belongs to another slice"),
                        |error| error.to_string(),
                    );
                    // What was lost was acknowledged before now.
                    let to_ns = slice.end_ns.min(now_ns.saturating_add(1));
                    self.lose(&name, slice.start_ns, to_ns, reason);
                }
            }
        }
        Ok(runs)
    }

    fn lose(&mut self, name: &str, from_ns: i64, to_ns: i64, reason: String) {
        if self.storage.set_aside(name).is_ok() {
            self.report.set_aside.push(name.to_owned());
        }
        self.report.damage.push(reason.clone());
        self.manifest.holes.push(Hole { from_ns, to_ns, reason });
    }

    /// Maps the filters, or says why they are rebuilt. A new store gets new ones.
    fn open_filters(&mut self) -> Result<Vec<Option<Filter>>> {
        let shards = 1 << self.config.shard_bits;
        let columns = Columns::for_slices(self.config.slices);
        let old = &self.manifest.geometry;
        let same = (old.window_ns, old.slice_ns, old.slices, old.shard_bits)
            == (
                self.config.window_ns,
                self.config.slice_ns,
                self.config.slices,
                self.config.shard_bits,
            );
        let reason = if !self.trusted {
            Some("the machine was restarted, or the files were moved")
        } else if !same {
            Some("window, slices or shards have changed")
        } else {
            None
        };
        if self.report.created {
            return self.create_filters(shards, columns);
        }
        let mut filters: Vec<Option<Filter>> = (0..shards).map(|_| None).collect();
        let entries = std::mem::take(&mut self.manifest.filters);
        let mut files: Vec<u64> = entries.iter().map(|entry| entry.file).collect();
        files.sort_unstable();
        files.dedup();
        for number in files {
            let (storage, store) = (&*self.storage, self.header.store);
            let opened = match reason {
                Some(_) => None,
                None => FilterFile::open(storage, store, number, columns, true).ok(),
            };
            let Some(file) = opened else {
                self.storage.remove(&names::numbered(names::Kind::Filter, number))?;
                continue;
            };
            for entry in entries.iter().filter(|entry| entry.file == number) {
                if let Some(place) = filters.get_mut(entry.shard as usize) {
                    *place = file.filter(entry.shard as usize);
                    self.manifest.filters.push(entry.clone());
                }
            }
        }
        self.report.filters_rebuilt = filters.iter().filter(|f| f.is_none()).count() as u64;
        if self.report.filters_rebuilt > 0 {
            let reason = reason.unwrap_or("a filter was missing or damaged");
            self.report.rebuild_reason = Some(reason.to_owned());
        }
        Ok(filters)
    }

    fn create_filters(&mut self, shards: usize, columns: Columns) -> Result<Vec<Option<Filter>>> {
        // The manifest comes before the first numbered file: should this open not get further, the
        // next one finds a store and no leftovers of an unknown one.
        self.storage.replace(names::MANIFEST, &self.manifest.encode(), true)?;
        let blocks = shard_blocks(&self.config, self.config.expected_keys);
        let number = self.manifest.next_file;
        self.manifest.next_file += 1;
        let (storage, store) = (&*self.storage, self.header.store);
        let file = FilterFile::create(storage, store, number, shards, blocks, columns)?;
        self.manifest.filters =
            (0..shards as u32).map(|shard| FilterEntry { file: number, shard }).collect();
        Ok((0..shards).map(|shard| file.filter(shard)).collect())
    }

    /// Names this open in the manifest, before anything of it is written.
    fn publish(&mut self, timeline: &Timeline) -> Result<()> {
        self.manifest.geometry = geometry(&self.config);
        self.manifest.eras.clone_from(&timeline.eras);
        self.manifest.opens += 1;
        self.manifest.closed_ns = i64::MIN;
        self.manifest.sequence += 1;
        let bytes = self.manifest.encode();
        self.storage.replace(names::MANIFEST, &bytes, self.report.created)
    }

    fn assemble(
        self,
        time: EngineTime,
        timeline: Timeline,
        runs: &[Arc<Run>],
        filters: Vec<Option<Filter>>,
    ) -> Result<Arc<Engine>> {
        let config = self.config;
        let now_ns = if config.event_time { time.watermark() } else { time.now() };
        let runs_of = |slice| runs.iter().filter(|run| run.slice == slice).cloned().collect();
        let catalog = Arc::new(timeline.catalog(1, now_ns, runs_of));
        time.set_due(catalog.valid_until_ns);
        let quota = Quota::new(config.max_keys);
        runs.iter().for_each(|run| quota.found_sealed(run.slice, run.keys));
        let sizes = Sizes::of(&config);
        let opens = self.manifest.opens;
        let ledger = Arc::new(Ledger::new(self.storage, self.manifest));
        let tools = Tools {
            journal: Journal::new(Arc::clone(&ledger), sizes.segment_chunks),
            quota,
            refresh_on_duplicate: config.refresh_on_duplicate,
            claims_held: AtomicUsize::new(0),
            index_records: sizes.index_records,
            indexes: Mutex::default(),
        };
        let maintenance = Maintenance::default();
        let sized = sized_keys(&config, &filters).max(config.expected_keys);
        maintenance.filter_keys.store(sized, std::sync::atomic::Ordering::Release);
        let shard = |filter| {
            let mut shard = Shard::new(Arc::clone(&catalog));
            shard.filter = filter;
            CachePadded::new(Mutex::new(shard))
        };
        let shards: Box<[_]> = filters.into_iter().map(shard).collect();
        let hints = shards.iter().map(|_| CachePadded::new(FilterHint::default())).collect();
        let engine = Arc::new_cyclic(|me| Engine {
            me: me.clone(),
            config,
            header: self.header,
            ledger,
            shards,
            hints,
            tools,
            time,
            version: CachePadded::new(AtomicU64::new(1)),
            window: RwLock::new(Window { timeline, catalog }),
            claims: claims::Claims::new(opens),
            maintenance,
            recovery: Mutex::new(self.report),
            poisoned: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        for (index, shard) in engine.shards.iter().enumerate() {
            engine.set_hint(index, &shard.lock());
        }
        Ok(engine)
    }
}

/// Errors after which a sealed file counts as lost, while others end the open.
fn is_lost(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Keys that the smallest of the filters is sized for, times the shards.
fn sized_keys(config: &Config, filters: &[Option<Filter>]) -> u64 {
    let least = filters.iter().flatten().map(Filter::blocks).min().unwrap_or(0);
    let per_block = sizing::keys_per_block(config.slices, config.false_positive_rate);
    // What `shard_blocks` adds for uneven shards is taken off again.
    let keys = f64::from(least) * per_block;
    let keys = if filters.len() == 1 { keys } else { keys - 4.0 * keys.sqrt() };
    (keys.max(0.0) as u64).saturating_mul(filters.len() as u64)
}
