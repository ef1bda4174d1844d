//! The journal: mapped segments, handed out to shards page by page.
//!
//! A segment is a header page and chunks. Chunks are taken in order, so what is written at one time
//! lies together, while each shard appends to chunks of its own and waits for nobody. A segment is
//! named in the manifest before its first chunk is handed out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};

use crate::error::{Error, Result};
use crate::exact::index::MAX_POSITIONS;
use crate::format::chunk::{self, Chunk, ChunkKind, SLOTS};
use crate::format::header::{FILE_HEADER_LEN, FileHeader, FileKind};
use crate::format::names::{self, Kind};
use crate::format::record;
use crate::format::{PAGE, StoreId};
use crate::ledger::Ledger;
use crate::storage::{Advice, Region, Storage};
use crate::sync::{AtomicBool, AtomicI64, AtomicU32, Mutex};

/// Most chunks of a segment: a shard's index can number the records of all of them.
pub(crate) const MAX_CHUNKS: u32 = (MAX_POSITIONS / SLOTS - 1) as u32;

/// Least chunks of segments that are made when something was kept with a mark: several of the longest
/// values fit into one.
const LEAST_CHUNKS_FOR_VALUES: u32 = 255;
const _: () = assert!(MAX_CHUNKS > LEAST_CHUNKS_FOR_VALUES);

const HUGE_PAGE: u64 = 2 << 20;

/// Where the header page counts the tombstones of the segment.
const TOMBSTONES_AT: usize = 1024;
/// Where it has the segment's place in the order in which segments were filled, zero before that.
const ORDER_AT: usize = 1032;
const _: () = assert!(TOMBSTONES_AT >= FILE_HEADER_LEN && ORDER_AT < PAGE);

/// One file of the journal.
pub(crate) struct Segment {
    pub(crate) id: u64,
    region: Region,
    chunks: u32,
    next: AtomicU32,
    /// Its pages are in memory.
    populated: AtomicBool,
    /// Behind the chunks there is a byte for each: how many of its records an authority has.
    has_sent: bool,
}

/// Pages behind the chunks of a segment whose records are written to an authority.
fn sent_pages(chunks: u32, has_sent: bool) -> u64 {
    if has_sent { u64::from(chunks).div_ceil(PAGE as u64) } else { 0 }
}

impl Segment {
    fn create(
        storage: &dyn Storage,
        store: StoreId,
        id: u64,
        chunks: u32,
        has_sent: bool,
    ) -> Result<Self> {
        let len = (u64::from(chunks) + 1 + sent_pages(chunks, has_sent)) * PAGE as u64;
        let region = storage.create(&names::numbered(Kind::Journal, id), len)?;
        if len >= HUGE_PAGE {
            // Before the first page is touched, which decides how the kernel keeps its neighbours.
            region.advise(Advice::HugePages);
        }
        let fields = [u64::from(chunks), u64::from(has_sent), 0, 0, 0, 0];
        let header = FileHeader { kind: FileKind::Journal, store, id, fields };
        region.write_bytes(0, &header.encode());
        let (next, populated) = (AtomicU32::new(0), AtomicBool::new(false));
        Ok(Segment { id, region, chunks, next, populated, has_sent })
    }

    /// Maps an existing segment for reading.
    pub(crate) fn open(storage: &dyn Storage, store: StoreId, id: u64) -> Result<Self> {
        let name = names::numbered(Kind::Journal, id);
        let region = storage.open(&name, false)?;
        let damaged = |why: &str| Error::corrupt(storage.path(&name), why);
        if region.len() < PAGE {
            return Err(damaged("it is shorter than its header"));
        }
        let mut header = [0; FILE_HEADER_LEN];
        region.read_bytes(0, &mut header);
        let [chunks, has_sent, ..] =
            FileHeader::decode(&header, FileKind::Journal, store, id).map_err(damaged)?;
        let there = region.len() / PAGE - 1;
        if chunks > u64::from(MAX_CHUNKS) || chunks as usize > there {
            return Err(damaged("it is shorter than its header says"));
        }
        let chunks = chunks as u32;
        let has_sent =
            has_sent == 1 && there as u64 >= u64::from(chunks) + sent_pages(chunks, true);
        let (next, populated) = (AtomicU32::new(chunks), AtomicBool::new(true));
        Ok(Segment { id, region, chunks, next, populated, has_sent })
    }

    #[inline]
    pub(crate) fn chunk(&self, index: u32) -> &Chunk {
        &self.region.cells::<Chunk>()[1 + index as usize]
    }

    /// The memory of one chunk.
    pub(crate) fn page(&self, index: u32) -> Region {
        self.region.part((1 + index as usize) * PAGE, PAGE)
    }

    fn sent_cell(&self, index: u32) -> Option<&AtomicU8> {
        let at = (1 + self.chunks as usize) * PAGE + index as usize;
        if self.has_sent { self.region.cells::<AtomicU8>().get(at) } else { None }
    }

    /// How many digests of a chunk an authority has acknowledged, from the first on.
    pub(crate) fn sent(&self, index: u32) -> u8 {
        self.sent_cell(index).map_or(0, |cell| cell.load(Acquire))
    }

    pub(crate) fn set_sent(&self, index: u32, digests: u8) {
        if let Some(cell) = self.sent_cell(index) {
            cell.store(digests, Release);
        }
    }

    /// Counts a record whose loss could bring a forgotten key back. Counted after it was written, so
    /// a process that dies in between leaves one record too many, never one too few.
    pub(crate) fn count_tombstone(&self) {
        self.tombstone_counter().fetch_add(1, Release);
    }

    /// How many were counted.
    pub(crate) fn tombstones(&self) -> u64 {
        u64::from_le(self.tombstone_counter().load(Acquire))
    }

    fn tombstone_counter(&self) -> &AtomicU64 {
        &self.region.cells::<AtomicU64>()[TOMBSTONES_AT / 8]
    }

    fn order_cell(&self) -> &AtomicU64 {
        &self.region.cells::<AtomicU64>()[ORDER_AT / 8]
    }

    /// Segments are read back in this order: a key may have been forgotten in one and seen again in
    /// the next.
    pub(crate) fn order(&self) -> u64 {
        u64::from_le(self.order_cell().load(Acquire))
    }

    /// Everything that a reader has to know to trust the segment's control records: each chunk has
    /// its header, each record its checksum, and there are as many tombstones as were counted, here or
    /// in the logs (`logged`). Digests carry no checksum: one that is lost or changed is a key that is
    /// not known, never one that is known by mistake.
    pub(crate) fn verify(&self, logged: u64) -> std::result::Result<(), String> {
        let mut tombstones = 0;
        for number in 0..self.chunks {
            let chunk = self.chunk(number);
            let damaged = |why: &str| format!("chunk {number}: {why}");
            match chunk::kind(chunk, self.id, number as usize).map_err(damaged)? {
                Some(ChunkKind::Control(_)) => {
                    for record in record::records(chunk) {
                        tombstones += u64::from(record.map_err(damaged)?.is_of_tombstone());
                    }
                }
                Some(ChunkKind::Digests(_)) | None => {}
            }
        }
        if tombstones < self.tombstones().max(logged) {
            return Err("tombstones are missing".to_owned());
        }
        Ok(())
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    /// Brings its pages in, so that who fills it does not wait for them.
    fn populate(&self) {
        if !self.populated.swap(true, AcqRel) {
            self.region.advise(Advice::PopulateWrite);
        }
    }

    /// Bytes of it that are in memory, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let in_use = self.populated.load(Acquire) || self.next.load(Acquire) > 0;
        if in_use { self.region.len() as u64 } else { PAGE as u64 }
    }

    fn take(&self) -> Option<u32> {
        let taken = self.next.fetch_add(1, AcqRel);
        (taken < self.chunks).then_some(taken)
    }

    fn untaken(&self) -> u32 {
        self.chunks.saturating_sub(self.next.load(Acquire))
    }
}

/// Space that was set aside before a batch marks anything.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    chunks: u32,
}

pub(crate) struct Journal {
    ledger: Arc<Ledger>,
    store: StoreId,
    /// Records are written to an authority too.
    has_sent: bool,
    /// Chunks of the next segment.
    segment_chunks: AtomicU32,
    segments: Mutex<Segments>,
    /// Chunks that nobody has taken or reserved.
    free: AtomicI64,
}

#[derive(Default)]
struct Segments {
    current: Option<Arc<Segment>>,
    spare: VecDeque<Arc<Segment>>,
    /// Segments that no chunk is taken from any more, and that are not sealed yet.
    full: Vec<u64>,
    /// Order of the newest segment that was put to use.
    filled: u64,
    /// Segments that were put to use since others were last made ready.
    begun: usize,
}

impl Journal {
    pub(crate) fn new(ledger: Arc<Ledger>, segment_chunks: u32, has_sent: bool) -> Self {
        let store = ledger.store();
        // The number of the open is above the number of the segment, so that order holds across
        // restarts.
        let filled = ledger.read(|manifest| manifest.opens) << 32;
        Journal {
            ledger,
            store,
            has_sent,
            segment_chunks: AtomicU32::new(segment_chunks.min(MAX_CHUNKS)),
            segments: Mutex::new(Segments { filled, ..Segments::default() }),
            free: AtomicI64::new(0),
        }
    }

    /// Has segments made larger from here on, never smaller.
    pub(crate) fn enlarge_segments(&self, chunks: u32) {
        self.segment_chunks.fetch_max(chunks.min(MAX_CHUNKS), AcqRel);
    }

    /// Sets `chunks` chunks aside; creates segments when there are too few. On an error nothing is
    /// set aside.
    pub(crate) fn reserve(&self, chunks: u32) -> Result<Reservation> {
        let wanted = i64::from(chunks);
        if self.free.fetch_sub(wanted, AcqRel) >= wanted {
            return Ok(Reservation { chunks });
        }
        let mut segments = self.segments.lock();
        while self.free.load(Acquire) < 0 {
            if let Err(error) = self.add_segment(&mut segments) {
                drop(segments);
                self.free.fetch_add(wanted, AcqRel);
                return Err(error);
            }
        }
        Ok(Reservation { chunks })
    }

    /// Sets aside `chunks` more.
    pub(crate) fn reserve_more(&self, reservation: &mut Reservation, chunks: u32) -> Result<()> {
        reservation.chunks += self.reserve(chunks)?.chunks;
        Ok(())
    }

    /// The path of a file of the store.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.ledger.storage().path(name)
    }

    #[inline]
    pub(crate) fn release(&self, reservation: Reservation) {
        if reservation.chunks == 0 {
            // Most calls took nothing, and a locked instruction would wait for their cache miss.
            return;
        }
        self.free.fetch_add(i64::from(reservation.chunks), AcqRel);
    }

    /// Takes one chunk out of a reservation, or reserves one. Says whether a segment was begun, so
    /// that the one before can be sealed.
    pub(crate) fn take(&self, reservation: &mut Reservation) -> Result<Taken> {
        if reservation.chunks == 0 {
            *reservation = self.reserve(1)?;
        }
        let mut segments = self.segments.lock();
        let mut began_segment = false;
        loop {
            if let Some(current) = &segments.current
                && let Some(chunk) = current.take()
            {
                reservation.chunks -= 1;
                return Ok(Taken { segment: Arc::clone(current), chunk, began_segment });
            }
            began_segment |= self.begin_next(&mut segments)?;
        }
    }

    /// Puts the next segment to use, or makes one; whether it was put to use.
    fn begin_next(&self, segments: &mut Segments) -> Result<bool> {
        let Some(next) = segments.spare.pop_front() else {
            self.add_segment(segments)?;
            return Ok(false);
        };
        segments.filled += 1;
        segments.begun += 1;
        next.order_cell().store(segments.filled.to_le(), Release);
        let full = segments.current.replace(next);
        segments.full.extend(full.map(|segment| segment.id));
        Ok(true)
    }

    /// Takes chunks of one segment, which follow each other, out of a reservation of as many: so many as
    /// `needed` says of that segment. What is left of a segment that has too few is not used.
    pub(crate) fn take_together(
        &self,
        reservation: &mut Reservation,
        needed: impl Fn(u64) -> u32,
    ) -> Result<(Taken, u32)> {
        self.enlarge_segments(LEAST_CHUNKS_FOR_VALUES);
        let mut segments = self.segments.lock();
        let mut began_segment = false;
        loop {
            if let Some(current) = &segments.current {
                let (segment, count) = (Arc::clone(current), needed(current.id));
                if segment.untaken() >= count {
                    let chunk = segment.next.fetch_add(count, AcqRel);
                    reservation.chunks -= count;
                    return Ok((Taken { segment, chunk, began_segment }, count));
                }
                self.leave_rest(&mut segments, &segment)?;
            }
            began_segment |= self.begin_next(&mut segments)?;
        }
    }

    /// Gives up what is left of a segment; who has reserved chunks finds others.
    fn leave_rest(&self, segments: &mut Segments, segment: &Segment) -> Result<()> {
        let left = i64::from(segment.untaken());
        self.free.fetch_sub(left, AcqRel);
        while self.free.load(Acquire) < 0 {
            if let Err(error) = self.add_segment(segments) {
                self.free.fetch_add(left, AcqRel);
                return Err(error);
            }
        }
        segment.next.store(segment.chunks, Release);
        Ok(())
    }

    fn add_segment(&self, segments: &mut Segments) -> Result<()> {
        let segment = self.create()?;
        self.name(&[segment.id])?;
        self.free.fetch_add(i64::from(segment.chunks), AcqRel);
        segments.spare.push_back(Arc::new(segment));
        Ok(())
    }

    /// A segment that the manifest does not name yet.
    fn create(&self) -> Result<Segment> {
        let id = self.ledger.next_file();
        let chunks = self.segment_chunks.load(Acquire);
        Segment::create(self.ledger.storage(), self.store, id, chunks, self.has_sent)
    }

    /// Names new segments in the manifest, so that their chunks can be handed out. They are not
    /// synced: after a power loss a segment is read as far as it reached the disk, or from the logs.
    fn name(&self, ids: &[u64]) -> Result<()> {
        if let Err(error) = self.ledger.storage().sync_names() {
            for id in ids {
                let _ = self.ledger.storage().remove(&names::numbered(Kind::Journal, *id));
            }
            return Err(error);
        }
        // Should that fail, the files stay: the manifest on the disk may name them.
        self.ledger.update(|manifest| manifest.journals.extend(ids))
    }

    /// Makes sure that the next segments are there, so that nobody waits for them, and the pages of
    /// the very next one in memory: twice as many as were put to use since the last time, `most` at
    /// most. For the background. They are named together, because that takes syncs.
    pub(crate) fn prepare_spares(&self, most: usize) -> Result<()> {
        let missing = {
            let mut segments = self.segments.lock();
            let wanted = (2 * std::mem::take(&mut segments.begun)).clamp(1, most);
            wanted.saturating_sub(segments.spare.len())
        };
        let created = self.create_some(missing)?;
        if !created.is_empty() {
            self.name(&created.iter().map(|segment| segment.id).collect::<Vec<_>>())?;
        }
        let next = {
            let mut segments = self.segments.lock();
            let free: i64 = created.iter().map(|segment| i64::from(segment.chunks)).sum();
            self.free.fetch_add(free, AcqRel);
            segments.spare.extend(created.into_iter().map(Arc::new));
            segments.spare.front().cloned()
        };
        if let Some(next) = next {
            next.populate();
        }
        Ok(())
    }

    /// Segments that are not named yet; at least one, unless `count` is zero.
    fn create_some(&self, count: usize) -> Result<Vec<Segment>> {
        let mut created = Vec::new();
        for _ in 0..count {
            match self.create() {
                Ok(segment) => created.push(segment),
                // Fewer will do.
                Err(_) if !created.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(created)
    }

    /// Segments that hold records and are not sealed.
    pub(crate) fn unsealed(&self) -> Vec<u64> {
        let segments = self.segments.lock();
        let current = segments.current.iter().map(|segment| segment.id);
        segments.full.iter().copied().chain(current).collect()
    }

    /// Ends the segment in use before it is full, so that it is sealed.
    pub(crate) fn retire(&self) -> Result<()> {
        // Reserved chunks stay available.
        self.prepare_spares(1)?;
        let mut segments = self.segments.lock();
        if let Some(current) = segments.current.take() {
            self.free.fetch_sub(i64::from(current.untaken()), AcqRel);
            segments.full.push(current.id);
        }
        Ok(())
    }

    /// Ends all open segments, those that are ready as well: the kernel could not write back what is
    /// in them, and may drop it. What comes next goes to one that it has not failed with.
    pub(crate) fn retire_all(&self) -> Result<()> {
        let fresh = self.create()?;
        self.name(&[fresh.id])?;
        let mut segments = self.segments.lock();
        let Segments { current, spare, full, .. } = &mut *segments;
        for segment in spare.drain(..).chain(current.take()) {
            self.free.fetch_sub(i64::from(segment.untaken()), AcqRel);
            full.push(segment.id);
        }
        self.free.fetch_add(i64::from(fresh.chunks), AcqRel);
        segments.spare.push_back(Arc::new(fresh));
        Ok(())
    }

    /// Segments that are to be sealed.
    pub(crate) fn full_segments(&self) -> Vec<u64> {
        self.segments.lock().full.clone()
    }

    /// What `ids` held is sealed.
    pub(crate) fn sealed(&self, ids: &[u64]) {
        self.segments.lock().full.retain(|id| !ids.contains(id));
    }

    /// The segment that chunks are taken from now, and the ones after it.
    pub(crate) fn open_segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments.lock();
        segments.current.iter().chain(&segments.spare).cloned().collect()
    }
}

/// A chunk for one shard.
pub(crate) struct Taken {
    pub(crate) segment: Arc<Segment>,
    pub(crate) chunk: u32,
    pub(crate) began_segment: bool,
}

/// Chunks of a segment for about `keys` records in `shards` shards: each shard leaves a chunk of
/// digests and one of control records half full.
pub(crate) fn segment_chunks(keys: u64, shards: usize) -> u32 {
    let full = keys.div_ceil(SLOTS as u64 - 1);
    let chunks = full + 2 * shards as u64 + 4;
    u32::try_from(chunks).unwrap_or(MAX_CHUNKS).min(MAX_CHUNKS)
}
