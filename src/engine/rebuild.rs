//! Filters in the background: rebuilt larger when more keys come than planned, or from nothing when
//! what is on disk does not fit or cannot be trusted.
//!
//! A filter is built beside the one in use. From its first moment it gets every new key, then the
//! live keys of before are added a few at a time under short locks, then the manifest names it, and
//! then it takes over. Whenever the process dies, the filter that the manifest names is whole.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Engine;
use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::exact::run::Run;
use crate::filter::{Columns, Filter};
use crate::format::chunk;
use crate::format::header::{FILE_HEADER_LEN, FileHeader, FileKind};
use crate::format::manifest::{FilterEntry, Hole};
use crate::format::names::{self, Kind};
use crate::format::{PAGE, StoreId};
use crate::journal::Segment;
use crate::plan::{Sizes, shard_blocks};
use crate::storage::{Advice, Region, Storage, allocate};
use crate::telemetry::events;

/// The filter is rebuilt when there are this many times the keys it was sized for.
const GROW_AT: f64 = 1.4;
/// Room for growth in a rebuilt filter.
const HEADROOM: f64 = 1.5;
/// A burst in one slice fills its column more than planned. Sizing the filter for a window of such
/// slices would cost several times the memory, so it grows at most this far beyond the live keys.
const MOST_PER_LIVE_KEY: f64 = 1.5;
const HUGE_PAGE: u64 = 2 << 20;
/// Digests added under one lock, half a microsecond: who waits for it does not have to sleep.
const STEP: usize = 64;

/// Where the digests of before are.
struct Source {
    /// The filter that gets them, to fetch its blocks without the lock.
    filter: Filter,
    runs: Vec<Arc<Run>>,
    /// Unsealed chunks with their slices.
    chunks: Vec<(Arc<Segment>, u32, u64)>,
}

impl Engine {
    /// Schedules larger filters when the live keys, or the current slice's share times the number of
    /// slices, have outgrown them.
    pub(super) fn grow_if_due(&self) {
        let needed = self.keys_needed();
        let sized = self.maintenance.filter_keys.load(Acquire);
        if needed as f64 > sized as f64 * GROW_AT {
            let target = (needed as f64 * HEADROOM) as u64;
            self.maintenance.filter_keys.store(target, Release);
            self.enlarge_segments(target);
            self.schedule_rebuild();
        }
    }

    /// Small segments in a large store would be sealed all the time, into many parts that have to be
    /// merged.
    fn enlarge_segments(&self, keys: u64) {
        let sizes = Sizes::of(&self.config, keys);
        self.tools.journal.enlarge_segments(sizes.segment_chunks);
        self.tools.index_records.fetch_max(sizes.index_records, Relaxed);
    }

    fn keys_needed(&self) -> u64 {
        let catalog = self.catalog();
        let of_slice = |s: &crate::catalog::Slice| s.runs.iter().map(|r| r.keys).sum::<u64>();
        let live: u64 = catalog.slices.iter().map(of_slice).sum();
        let fullest = catalog.slices.iter().map(of_slice).max().unwrap_or(0);
        let projected = fullest * u64::from(self.config.slices);
        live.max(projected.min((live as f64 * MOST_PER_LIVE_KEY) as u64))
    }

    /// Rebuilds every filter that is missing or too small, shard by shard, into one file.
    pub(super) fn rebuild_due(&self) -> Result<()> {
        if self.recovery.lock().created {
            self.populate_filters();
        }
        let blocks = shard_blocks(&self.config, self.maintenance.filter_keys.load(Acquire));
        let mut due = Vec::new();
        // A file that the manifest does not name any more cannot be trusted.
        let named: HashSet<usize> = self
            .ledger
            .read(|manifest| manifest.filters.iter().map(|filter| filter.shard as usize).collect());
        for index in 0..self.shards.len() {
            let shard = self.enter(index)?;
            let is_good = |filter: &Filter| {
                filter.blocks() >= blocks && (filter.is_passing() || named.contains(&index))
            };
            if !shard.filter.as_ref().is_some_and(is_good) {
                due.push(index);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let number = self.ledger.next_file();
        let columns = Columns::for_slices(self.config.slices);
        let (storage, store) = (self.ledger.storage(), self.header.store);
        let shards = self.shards.len();
        self.maintenance.rebuild_failed.store(true, Release);
        let set = FilterSet::create(storage, store, number, shards, blocks, columns)?;
        set.region.advise(Advice::PopulateWrite);
        let shards_due = due.len();
        let rebuilt = due.into_iter().try_for_each(|index| match set.filter(index) {
            Some(filter) => self.rebuild(index, filter, set.file),
            None => Ok(()),
        });
        if let Some(file) = set.file {
            self.remove_unused_filters(file);
        }
        self.maintenance.rebuild_failed.store(rebuilt.is_err(), Release);
        if rebuilt.is_ok() {
            events::filters_built(&self.path(), shards_due, set.file.is_none());
        }
        rebuilt
    }

    /// Brings in the pages of a new store's filters, so that no call waits for them, and as huge
    /// pages.
    fn populate_filters(&self) {
        for shard in &self.shards {
            let region = shard.lock().filter.as_ref().map(|filter| filter.region().clone());
            if let Some(region) = region {
                region.advise(Advice::PopulateWrite);
            }
        }
    }

    fn rebuild(&self, index: usize, filter: Filter, file: Option<u64>) -> Result<()> {
        let rebuilt = self.begin_building(index, filter).and_then(|source| {
            self.fill(index, &source)?;
            self.replace_filter(index, file)
        });
        if rebuilt.is_err() {
            self.shards[index].lock().building = None;
        }
        rebuilt
    }

    /// Removes `file` if no shard came to use it; used files stay.
    fn remove_unused_filters(&self, file: u64) {
        if !self.ledger.read(|m| m.filters.iter().any(|entry| entry.file == file)) {
            self.remove_file(Kind::Filter, file);
        }
    }

    /// From here on the new filter gets every new key; returns where the others are.
    fn begin_building(&self, index: usize, filter: Filter) -> Result<Source> {
        let mut shard = self.enter(index)?;
        shard.building = Some(filter.clone());
        let unsealed = shard.frozen.iter().map(|f| &**f).chain(&shard.active);
        let chunks = unsealed
            .flat_map(|set| {
                set.chunks()
                    .iter()
                    .map(|(number, slice)| (Arc::clone(&set.segment), *number, *slice))
            })
            .collect();
        let runs = shard.catalog.slices.iter().flat_map(|slice| slice.runs.clone()).collect();
        Ok(Source { filter, runs, chunks })
    }

    fn fill(&self, index: usize, source: &Source) -> Result<()> {
        let mut digests = Vec::with_capacity(STEP);
        for run in &source.runs {
            for page in run.pages_of_shard(index, self.config.shard_bits) {
                self.stopping()?;
                digests.clear();
                if let Err(error) = run.read_page(page, &mut digests) {
                    self.note_damage(run, &error)?;
                }
                digests.retain(|digest| self.shard_of(*digest) == index);
                self.add_to_building(index, &source.filter, run.slice, &digests)?;
            }
        }
        for (segment, number, slice) in &source.chunks {
            self.stopping()?;
            digests.clear();
            digests.extend(chunk::digests(segment.chunk(*number)));
            self.add_to_building(index, &source.filter, *slice, &digests)?;
        }
        Ok(())
    }

    fn add_to_building(
        &self,
        index: usize,
        filter: &Filter,
        slice: u64,
        digests: &[Digest],
    ) -> Result<()> {
        let mut places = Vec::with_capacity(STEP);
        for digests in digests.chunks(STEP) {
            places.clear();
            places.extend(digests.iter().map(|digest| filter.place(*digest)));
            places.iter().for_each(|place| filter.prefetch(*place));
            let shard = self.enter(index)?;
            let Some(filter) = &shard.building else { return Err(Error::Closed) };
            let Some(column) = shard.catalog.slice(slice).map(|slice| slice.column) else {
                return Ok(());
            };
            for place in &places {
                filter.insert(*place, column, shard.catalog.current);
            }
        }
        Ok(())
    }

    /// A page that cannot be read: its keys are lost to the filter, so the slice is not vouched for.
    fn note_damage(&self, run: &Run, error: &Error) -> Result<()> {
        let Error::Corrupt { .. } = error else {
            return Err(Error::config("storage", error.to_string()));
        };
        self.note_hole(&self.catalog(), run.slice, error)
    }

    /// Notes a hole for the slice of the sealed part that `error` names.
    pub(super) fn note_lost(&self, catalog: &Catalog, error: &Error) -> Result<()> {
        let Error::Corrupt { file, .. } = error else { return Ok(()) };
        let mut runs = catalog.slices.iter().flat_map(|slice| &slice.runs);
        match runs.find(|run| run.path() == file) {
            Some(run) => self.note_hole(catalog, run.slice, error),
            None => Ok(()),
        }
    }

    /// Keys of a slice are lost: it is not vouched for up to now.
    pub(super) fn note_hole(&self, catalog: &Catalog, slice: u64, error: &Error) -> Result<()> {
        let Some(slice) = catalog.slice(slice) else { return Ok(()) };
        let from_ns = slice.start_ns;
        let to_ns = slice.end_ns.min(self.window_now().saturating_add(1));
        let reason = error.to_string();
        {
            let mut report = self.recovery.lock();
            if !report.damage.contains(&reason) {
                report.damage.push(reason.clone());
            }
        }
        let is_known = |hole: &Hole| hole.from_ns <= from_ns && to_ns <= hole.to_ns;
        if self.ledger.read(|manifest| manifest.holes.iter().any(is_known)) {
            return Ok(());
        }
        self.ledger.update(|manifest| {
            let is_part = |hole: &Hole| from_ns <= hole.from_ns && hole.to_ns <= to_ns;
            manifest.holes.retain(|hole| !is_part(hole));
            manifest.holes.push(Hole { from_ns, to_ns, reason });
        })
    }

    /// Names the new filter in the manifest if it is in a file, then uses it alone.
    fn replace_filter(&self, index: usize, file: Option<u64>) -> Result<()> {
        let mut replaced = None;
        self.ledger.update(|manifest| {
            manifest.filters.retain(|entry| {
                let stays = entry.shard as usize != index;
                if !stays {
                    replaced = Some(entry.file);
                }
                stays
            });
            manifest.filters.extend(file.map(|file| FilterEntry { file, shard: index as u32 }));
        })?;
        let old = {
            let mut shard = self.enter(index)?;
            let new = shard.building.take();
            let old = std::mem::replace(&mut shard.filter, new);
            self.set_hint(index, &shard);
            old
        };
        // Unmapping takes its time, and nobody should wait for it.
        drop(old);
        if let Some(replaced) = replaced {
            self.remove_unused_filters(replaced);
        }
        Ok(())
    }
}

/// The filters of all shards, one after the other, and a header in the last page: so the blocks begin
/// where a huge page can, and small filters share one. They are in a file; in memory alone where the
/// kernel would hold up who changes so large a file all over.
pub(crate) struct FilterSet {
    region: Region,
    /// The number of the file.
    pub(super) file: Option<u64>,
    shards: usize,
    blocks: u32,
    columns: Columns,
}

impl FilterSet {
    fn bytes(shards: usize, blocks: u32) -> u64 {
        let filters = Filter::bytes(blocks).saturating_mul(shards as u64);
        let len = filters.next_multiple_of(PAGE as u64) + PAGE as u64;
        // A large file ends on a huge page, so that its last part gets one too.
        if len < 4 * HUGE_PAGE { len } else { len.next_multiple_of(HUGE_PAGE) }
    }

    /// New filters, all empty, as file `file` if they are in one.
    pub(super) fn create(
        storage: &dyn Storage,
        store: StoreId,
        file: u64,
        shards: usize,
        blocks: u32,
        columns: Columns,
    ) -> Result<Self> {
        let len = FilterSet::bytes(shards, blocks);
        if !is_for_file(len, storage) {
            let region = allocate(len).ok_or_else(|| {
                let place = storage.path("the filters, in memory");
                Error::io("allocating", place, std::io::ErrorKind::OutOfMemory)
            })?;
            region.advise(Advice::HugePages);
            return Ok(FilterSet { region, file: None, shards, blocks, columns });
        }
        let region = storage.create(&names::numbered(Kind::Filter, file), len)?;
        region.advise(Advice::HugePages);
        let fields = [shards as u64, u64::from(blocks), u64::from(columns.count()), 0, 0, 0];
        let header = FileHeader { kind: FileKind::Filter, store, id: file, fields };
        region.write_bytes(len as usize - PAGE, &header.encode());
        Ok(FilterSet { region, file: Some(file), shards, blocks, columns })
    }

    /// Maps a file that the manifest names; an error says why it has to be rebuilt.
    pub(crate) fn open(
        storage: &dyn Storage,
        store: StoreId,
        file: u64,
        columns: Columns,
        writable: bool,
    ) -> Result<Self> {
        let name = names::numbered(Kind::Filter, file);
        let region = storage.open(&name, writable)?;
        let damaged = |why: &str| Error::corrupt(storage.path(&name), why);
        if region.len() < 2 * PAGE {
            return Err(damaged("it is shorter than its header"));
        }
        let mut header = [0; FILE_HEADER_LEN];
        region.read_bytes(region.len() - PAGE, &mut header);
        let [shards, blocks, count, ..] =
            FileHeader::decode(&header, FileKind::Filter, store, file).map_err(damaged)?;
        let blocks = u32::try_from(blocks).unwrap_or(0);
        let shards = usize::try_from(shards).unwrap_or(0);
        let fits = blocks > 0
            && (1..=4096).contains(&shards)
            && FilterSet::bytes(shards, blocks) == region.len() as u64;
        if !fits || count != u64::from(columns.count()) {
            return Err(damaged("its geometry is another one"));
        }
        region.advise(Advice::HugePages);
        Ok(FilterSet { region, file: Some(file), shards, blocks, columns })
    }

    /// The filter of one shard.
    pub(crate) fn filter(&self, shard: usize) -> Option<Filter> {
        if shard >= self.shards {
            return None;
        }
        let len = Filter::bytes(self.blocks) as usize;
        let part = self.region.part(shard * len, len);
        let filter = Filter::new(part, self.blocks, self.columns);
        Some(if self.file.is_some() { filter } else { filter.passing() })
    }
}

/// Whether filters of so many bytes may be a mapped file. Segments and sealed parts are dirty too: a
/// quarter of the room is theirs.
fn is_for_file(bytes: u64, storage: &dyn Storage) -> bool {
    bytes <= storage.dirty_room() / 4 * 3
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Builder, OnOutage};
    use crate::engine::open_in_memory;
    use crate::verdict::Verdict;

    /// Keys that come while a filter is filled are in it when it takes over, and so are those of before.
    #[test]
    fn a_filter_that_takes_over_has_the_keys_that_came_meanwhile() {
        let builder = Builder::default().window(Duration::from_secs(60)).shards(1);
        let engine = open_in_memory(builder.settings.validate().unwrap()).unwrap();
        let digest = |n: u64| engine.root_hasher().digest(&n.to_le_bytes());
        let mark = |keys: std::ops::Range<u64>| {
            keys.for_each(|n| {
                assert_eq!(engine.observe(digest(n), OnOutage::Fail).unwrap(), Verdict::New)
            });
        };
        mark(0..1_000);
        let (number, blocks) = (engine.ledger.next_file(), 1_000);
        let columns = Columns::for_slices(engine.config.slices);
        let (storage, store) = (engine.ledger.storage(), engine.header.store);
        let file = FilterSet::create(storage, store, number, 1, blocks, columns).unwrap();
        let source = engine.begin_building(0, file.filter(0).unwrap()).unwrap();
        // Some chunks of the journal more than there were.
        mark(1_000..2_500);
        engine.fill(0, &source).unwrap();
        mark(2_500..2_600);
        engine.replace_filter(0, Some(number)).unwrap();
        let is_in_use = |shard: &crate::shard::Shard| {
            shard.filter.as_ref().is_some_and(|filter| filter.blocks() == blocks)
        };
        assert!(is_in_use(&engine.shards[0].lock()));
        (0..2_600).for_each(|n| {
            assert!(engine.contains(digest(n), OnOutage::Fail).unwrap(), "key {n} is lost")
        });
    }
}
