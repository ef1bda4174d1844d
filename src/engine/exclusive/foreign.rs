//! Keys of the owner before: known to the authority, and read from there.
//!
//! A space is cut into parts by digest. The first key of a part that is not known here has the part read,
//! all its slices at once, and kept; from then on this store alone knows about the part. The parts are
//! dropped when all slices of the owner before are over.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::{Acquire as Acq, Relaxed, Release};

use super::{Owner, Slice};
use crate::authority::{AuthorityError, Bucket, StoredChunk};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::packed::Packed;
use crate::shard::Target;
use crate::sync::{AtomicBool, AtomicU64, Mutex};

/// Buckets of one call: 4 MiB, if they are as full as planned.
const MOST_BUCKETS: usize = 64;

pub(super) struct Foreign {
    slices: Mutex<Vec<Slice>>,
    /// A bit for each part that was read.
    loaded: Box<[AtomicU64]>,
    parts: u64,
    /// Nothing is left to read.
    complete: AtomicBool,
    wanted: Mutex<BTreeSet<u32>>,
    /// Held by the call that reads for all.
    reading: Mutex<()>,
}

/// The live digests of a part, each with the end of its slice in the server's time.
pub(super) type Part = HashMap<Digest, i64>;

impl Foreign {
    pub(super) fn new(part_bits: u32, slices: Vec<Slice>) -> Self {
        let parts = 1_u64 << part_bits;
        Foreign {
            complete: AtomicBool::new(slices.is_empty()),
            slices: Mutex::new(slices),
            loaded: (0..parts.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            parts,
            wanted: Mutex::default(),
            reading: Mutex::default(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Acq)
    }

    fn is_loaded(&self, part: u32) -> bool {
        self.is_complete() || self.loaded[part as usize / 64].load(Acq) >> (part % 64) & 1 == 1
    }

    pub(super) fn set_loaded(&self, part: u32) {
        self.loaded[part as usize / 64].fetch_or(1 << (part % 64), Release);
    }

    /// Parts that were read, of how many.
    pub(super) fn parts(&self) -> (u64, u64) {
        if self.is_complete() {
            return (self.parts, self.parts);
        }
        let loaded = self.loaded.iter().map(|word| u64::from(word.load(Acq).count_ones())).sum();
        (loaded, self.parts)
    }

    /// Some of the parts after `last` that were not read, as many as one call may have.
    pub(super) fn next_parts_after(&self, last: Option<u32>) -> Vec<u32> {
        let first = last.map_or(0, |last| last + 1);
        let all = first..u32::try_from(self.parts).unwrap_or(u32::MAX);
        all.filter(|part| !self.is_loaded(*part)).take(self.most_parts()).collect()
    }

    fn most_parts(&self) -> usize {
        (MOST_BUCKETS / self.slices.lock().len().max(1)).max(1)
    }

    /// Drops slices that are over; says whether none is left.
    fn drop_over(&self, now_ns: i64) -> bool {
        let mut slices = self.slices.lock();
        slices.retain(|slice| slice.over_ns > now_ns);
        slices.is_empty()
    }
}

impl Engine {
    /// Whether this store is the owner, and knows all that the authority does of the digests.
    pub(super) fn needs_nobody(&self, owner: &Owner, digests: &[Digest]) -> Result<bool> {
        if owner.is_lease_over(self.time.now()) {
            return Ok(false);
        }
        for digest in digests {
            if !owner.foreign.is_loaded(owner.part_of(*digest)) && !self.is_known(*digest)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sees to it that what the authority knows of the digests is known here.
    pub(super) fn know(&self, owner: &Owner, digests: &[Digest]) -> Result<()> {
        if owner.foreign.is_complete() {
            return Ok(());
        }
        let mut parts = BTreeSet::new();
        for digest in digests {
            let part = owner.part_of(*digest);
            if !parts.contains(&part)
                && !owner.foreign.is_loaded(part)
                && !self.is_known(*digest)?
            {
                parts.insert(part);
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        owner.foreign.wanted.lock().extend(&parts);
        let _one = owner.foreign.reading.lock();
        parts.retain(|part| !owner.foreign.is_loaded(*part));
        // With those of the calls that wait.
        let mut wanted = std::mem::take(&mut *owner.foreign.wanted.lock());
        wanted.extend(&parts);
        wanted.retain(|part| !owner.foreign.is_loaded(*part));
        let wanted: Vec<u32> = wanted.into_iter().collect();
        for some in wanted.chunks(owner.foreign.most_parts()) {
            for (part, digests) in self.read_parts(owner, some)? {
                self.keep_part(owner, part, digests)?;
            }
        }
        self.look_at_foreign(owner)
    }

    /// Whether something of the owner before is left to be read.
    pub(in crate::engine) fn look_at_foreign(&self, owner: &Owner) -> Result<()> {
        let foreign = &owner.foreign;
        if foreign.is_complete() {
            return Ok(());
        }
        let (loaded, parts) = foreign.parts();
        if !foreign.drop_over(self.time.now()) && loaded < parts {
            return Ok(());
        }
        // Should that fail, the next open reads some of it once more.
        self.ledger.update(|manifest| {
            if let Some(owner) = &mut manifest.owner {
                owner.foreign_until_ns = i64::MIN;
            }
        })?;
        foreign.complete.store(true, Release);
        self.turn_mark(owner);
        Ok(())
    }

    /// What the authority has of some parts.
    pub(super) fn read_parts(&self, owner: &Owner, parts: &[u32]) -> Result<Vec<(u32, Part)>> {
        let slices = owner.foreign.slices.lock().clone();
        let buckets: Vec<Bucket> = parts
            .iter()
            .flat_map(|part| slices.iter().map(|of| Bucket { slice: of.slice, part: *part }))
            .collect();
        if buckets.is_empty() {
            return Ok(Vec::new());
        }
        let read = owner.link.read(buckets).map_err(|failure| owner.error(&failure))?;
        let mut read = read.into_iter();
        let parts = parts.iter().map(|part| {
            let chunks = read.by_ref().take(slices.len()).flatten().collect();
            let live = live_of(chunks).map_err(|why| Error::Authority {
                name: owner.link.name(),
                transient: false,
                source: Box::new(AuthorityError::refused(why)),
            })?;
            owner.keys_read.fetch_add(live.len() as u64, Relaxed);
            Ok((*part, live))
        });
        parts.collect()
    }

    /// The slice of this store that keys of one which ends then belong to; `None` when it is over.
    pub(super) fn slice_of_end(&self, owner: &Owner, end_ns: i64) -> Option<Target> {
        let catalog = self.catalog();
        let last_ns = owner.store_time_after(end_ns).saturating_sub(1);
        let newest = catalog.slices.last().filter(|slice| last_ns >= slice.start_ns);
        let slice = newest.or_else(|| catalog.slice_at(last_ns))?;
        Some(Target { slice: slice.sequence, column: slice.column })
    }

    /// Keeps what was read of a part, in the journal.
    fn keep_part(&self, owner: &Owner, part: u32, digests: Part) -> Result<()> {
        let mut targets: HashMap<i64, Option<Target>> = HashMap::new();
        let mut call = self.begin()?;
        let mut kept = Ok(());
        for (digest, end_ns) in digests {
            let target = *targets.entry(end_ns).or_insert_with(|| self.slice_of_end(owner, end_ns));
            let Some(target) = target else { continue };
            kept = self.enter(self.shard_of(digest)).and_then(|mut shard| {
                let mask = shard.suspects(digest);
                // What was forgotten here the authority may not have heard of.
                if shard.tombstones.contains_key(&digest) || shard.find(digest, mask)?.is_some() {
                    return Ok(());
                }
                owner.learned.lock().insert((target.slice, digest));
                shard.learn(&self.tools, &mut call, (digest, None), target)
            });
            if kept.is_err() {
                break;
            }
        }
        kept.and(self.finish(call))?;
        owner.foreign.set_loaded(part);
        Ok(())
    }
}

/// What is live after all chunks of a part, in the order of their numbers.
fn live_of(mut chunks: Vec<StoredChunk>) -> std::result::Result<Part, &'static str> {
    chunks.sort_unstable_by_key(|chunk| chunk.number);
    let mut live = Part::new();
    for chunk in chunks {
        let packed = Packed::decode(&chunk.data)?;
        for digest in packed.forgotten {
            live.remove(&digest);
        }
        for digest in packed.digests {
            let end_ns = live.entry(digest).or_insert(packed.end_ns);
            *end_ns = packed.end_ns.max(*end_ns);
        }
    }
    Ok(live)
}
