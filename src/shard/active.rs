//! Unsealed records of one shard in one segment of the journal, with their index.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::kept::KeptHere;
use crate::digest::Digest;
use crate::error::Result;
use crate::exact::index::Index;
use crate::format::chunk::{self, Chunk, ChunkKind, SLOTS};
use crate::format::record::{Cursor, Record};
use crate::journal::{Journal, Reservation, Segment};
use crate::storage::{Region, prefetch};
use crate::sync::AtomicU64;

/// Words between the record that is written and the line that is fetched.
const AHEAD: usize = 16;

/// Records between the one that is indexed and the one whose bucket is fetched.
const BUCKETS_AHEAD: usize = 16;

/// The order of the fields is their order in memory: what an append reads and writes is first.
#[repr(C)]
pub(crate) struct Active {
    /// The chunk that is written now.
    tail: Option<OpenChunk>,
    /// Columns of the slices that have records here.
    columns: u64,
    pub(crate) segment: Arc<Segment>,
    /// Chunks of digests in the order in which they were taken; the position of a record is the
    /// place of its chunk in this list, times the slots of a chunk, plus its slot.
    chunks: Vec<(u32, u64)>,
    /// Those of other slices that are being filled.
    others: Vec<OpenChunk>,
    control: Option<(u32, Cursor)>,
    index: Index,
    /// Records that were taken out again.
    withdrawn: AtomicU64,
    /// What is kept with marks; most stores keep nothing.
    kept: Option<Box<KeptHere>>,
}

#[repr(C)]
struct OpenChunk {
    next_slot: usize,
    slice: u64,
    page: Region,
    /// Its place in the list of chunks.
    local: usize,
}

impl OpenChunk {
    #[inline(always)]
    fn chunk(&self) -> &Chunk {
        &self.page.cells::<Chunk>()[0]
    }
}

impl Active {
    pub(crate) fn new(segment: Arc<Segment>, index: Index) -> Self {
        Active {
            segment,
            chunks: Vec::new(),
            tail: None,
            others: Vec::new(),
            control: None,
            index,
            columns: 0,
            withdrawn: AtomicU64::new(0),
            kept: None,
        }
    }

    /// Whether a digest of `slice` fits without another chunk.
    #[inline(always)]
    pub(crate) fn has_room(&mut self, slice: u64) -> bool {
        match &self.tail {
            Some(open) if open.slice == slice => open.next_slot < SLOTS,
            _ => self.turn_to(slice),
        }
    }

    /// Goes on with the chunk of `slice`, if there is one.
    #[cold]
    fn turn_to(&mut self, slice: u64) -> bool {
        let Some(at) = self.others.iter().position(|open| open.slice == slice) else {
            return false;
        };
        let other = self.others.swap_remove(at);
        let has_room = other.next_slot < SLOTS;
        self.others.extend(self.tail.replace(other));
        has_room
    }

    /// Puts a fresh chunk of the segment to use for `slice`.
    pub(crate) fn add_chunk(&mut self, taken: u32, slice: u64) {
        let kind = ChunkKind::Digests(slice);
        chunk::publish(self.segment.chunk(taken), kind, self.segment.id, taken as usize);
        let local = self.chunks.len();
        self.chunks.push((taken, slice));
        self.others.retain(|open| open.slice != slice);
        let open = OpenChunk { slice, local, page: self.segment.page(taken), next_slot: 1 };
        let last = self.tail.replace(open);
        self.others.extend(last.filter(|last| last.slice != slice));
    }

    /// Appends a digest to the chunk that [`Active::has_room`] or [`Active::add_chunk`] turned to.
    #[inline(always)]
    pub(crate) fn append(&mut self, digest: Digest, column: u32) {
        let Some(open) = &mut self.tail else { return };
        let slot = open.next_slot;
        open.next_slot += 1;
        let chunk = open.chunk();
        chunk::write_digest(chunk, slot, digest);
        // The line after the next is on its way when its turn comes.
        prefetch(&chunk[(2 * slot + AHEAD) % chunk.len()]);
        if self.columns >> column & 1 == 0 {
            self.columns |= 1 << column;
        }
        if slot + 1 == SLOTS {
            self.index_tail();
        }
    }

    /// Indexes the records of the chunk that is written, which is full. All at once, because their
    /// buckets are anywhere: one after the other each would wait for its cache line.
    #[cold]
    #[inline(never)]
    fn index_tail(&mut self) {
        let Some(open) = &self.tail else { return };
        let first = open.local * SLOTS;
        self.index.reserve(first + SLOTS);
        let chunk = open.chunk();
        for slot in 1..SLOTS {
            if let Some(later) = chunk::read_digest(chunk, (slot + BUCKETS_AHEAD).min(SLOTS - 1)) {
                self.index.prefetch(later);
            }
            if let Some(digest) = chunk::read_digest(chunk, slot) {
                self.index.insert(digest, first + slot);
            }
        }
    }

    fn open_chunks(&self) -> impl Iterator<Item = &OpenChunk> {
        self.tail.iter().chain(&self.others)
    }

    /// Slices of records that are not indexed yet: those of chunks that are being filled.
    #[inline]
    fn find_unindexed(&self, digest: Digest) -> impl Iterator<Item = u64> + '_ {
        let holds = move |open: &&OpenChunk| {
            open.next_slot < SLOTS && chunk::holds(open.chunk(), open.next_slot, digest)
        };
        self.open_chunks().filter(holds).map(|open| open.slice)
    }

    /// The newest live slice that holds the digest here.
    #[inline]
    pub(crate) fn find(
        &self,
        digest: Digest,
        mask: u64,
        is_live: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        if self.columns & mask == 0 {
            return None;
        }
        let slice_of = |position: usize| {
            let (number, slice) = self.chunks[position / SLOTS];
            let found = chunk::read_digest(self.segment.chunk(number), position % SLOTS);
            (found == Some(digest) && is_live(slice)).then_some(slice)
        };
        let mut indexed = self.index.candidates(digest).filter_map(slice_of);
        // Newer records come first; only records of several slices may come in another order.
        let one_slice = self.columns.is_power_of_two();
        let indexed = if one_slice { indexed.next() } else { indexed.max() };
        indexed.max(self.find_unindexed(digest).filter(|slice| is_live(*slice)).max())
    }

    /// Fetches where the look-up of a digest that is suspected in `mask` begins.
    #[inline]
    pub(crate) fn prefetch(&self, digest: Digest, mask: u64) {
        if self.columns & mask != 0 {
            self.index.prefetch(digest);
        }
    }

    /// Whether the digest is here, in `slice`.
    pub(crate) fn holds(&self, digest: Digest, slice: u64) -> bool {
        self.find(digest, u64::MAX, |found| found == slice).is_some()
    }

    /// All slices that hold the digest here.
    pub(crate) fn find_all(&self, digest: Digest, out: &mut Vec<u64>) {
        out.extend(self.find_unindexed(digest));
        for position in self.index.candidates(digest) {
            let (number, slice) = self.chunks[position / SLOTS];
            let chunk = self.segment.chunk(number);
            if chunk::read_digest(chunk, position % SLOTS) == Some(digest) {
                out.push(slice);
            }
        }
    }

    /// Takes a digest of `slice` out again; true if it was here.
    #[cold]
    pub(crate) fn withdraw(&self, digest: Digest, slice: u64) -> bool {
        let mut held = false;
        for (number, _) in self.chunks.iter().filter(|(_, of)| *of == slice) {
            let chunk = self.segment.chunk(*number);
            for slot in 1..SLOTS {
                if chunk::read_digest(chunk, slot) == Some(digest) {
                    chunk::clear_digest(chunk, slot);
                    self.withdrawn.fetch_add(1, Relaxed);
                    held = true;
                }
            }
        }
        held
    }

    /// Appends a control record; `false` when it needs another chunk.
    #[inline(always)]
    pub(crate) fn append_control(&mut self, record: &Record<'_>) -> bool {
        let Some((number, cursor)) = &mut self.control else { return false };
        let chunk = self.segment.chunk(*number);
        if !record.append(chunk, cursor) {
            return false;
        }
        prefetch(&chunk[(cursor.words() + AHEAD) % chunk.len()]);
        if record.is_of_tombstone() {
            self.segment.count_tombstone();
        }
        true
    }

    /// Whether a control record with such a payload fits without another chunk.
    pub(super) fn has_control_room(&self, payload: usize) -> bool {
        self.control.is_some_and(|(_, cursor)| cursor.has_room(payload))
    }

    pub(crate) fn add_control_chunk(&mut self, taken: u32) {
        let chunk = self.segment.chunk(taken);
        chunk::publish(chunk, ChunkKind::Control(0), self.segment.id, taken as usize);
        self.control = Some((taken, Cursor::start()));
    }

    pub(crate) fn chunks(&self) -> &[(u32, u64)] {
        &self.chunks
    }

    /// How many records each slice has here: all its chunks are full but the open one.
    pub(crate) fn keys_by_slice(&self) -> Vec<(u64, u64)> {
        let mut keys: Vec<(u64, u64)> = Vec::new();
        for (local, (_, slice)) in self.chunks.iter().enumerate() {
            let open = self.open_chunks().find(|open| open.local == local);
            let here = open.map_or(SLOTS, |open| open.next_slot) as u64 - 1;
            match keys.iter_mut().find(|(counted, _)| counted == slice) {
                Some((_, sum)) => *sum += here,
                None => keys.push((*slice, here)),
            }
        }
        keys
    }

    /// Chunks with their slices, and how many records each has: all are full but those being filled.
    pub(crate) fn fills(&self) -> impl Iterator<Item = (u32, u64, u8)> + '_ {
        self.chunks.iter().enumerate().map(|(local, (number, slice))| {
            let open = self.open_chunks().find(|open| open.local == local);
            let here = open.map_or(SLOTS, |open| open.next_slot) - 1;
            (*number, *slice, here as u8)
        })
    }

    pub(crate) fn withdrawn(&self) -> u64 {
        self.withdrawn.load(Relaxed)
    }

    pub(crate) fn records(&self) -> u64 {
        self.keys_by_slice().iter().map(|(_, keys)| keys).sum()
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.memory_bytes());
        self.index.memory_bytes() + (self.chunks.capacity() * 16) as u64 + kept
    }

    pub(crate) fn kept(&self) -> Option<&KeptHere> {
        self.kept.as_deref()
    }

    pub(super) fn keep(&mut self) -> &mut KeptHere {
        self.kept.get_or_insert_default()
    }

    pub(crate) fn into_index(mut self) -> Index {
        self.index.clear();
        self.index
    }
}

/// Takes chunks for a shard, and tells when that began a segment.
pub(crate) struct Taker<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) reservation: &'a mut Reservation,
    pub(crate) began_segment: bool,
}

impl Taker<'_> {
    pub(crate) fn take(&mut self) -> Result<(Arc<Segment>, u32)> {
        let taken = self.journal.take(self.reservation)?;
        self.began_segment |= taken.began_segment;
        Ok((taken.segment, taken.chunk))
    }
}
