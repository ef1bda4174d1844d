//! What is written to the authority: the journal's records in their order, sealed files that were not
//! written before they were sealed, and what was forgotten.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire as Acq;
use std::time::{Duration, Instant};

use super::Owner;
use super::writing::Writing;
use crate::authority::{Bucket, Chunk};
use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::Result;
use crate::format::chunk;
use crate::format::packed::Packed;
use crate::journal::Segment;
use crate::log::Level;
use crate::time::Timestamp;

/// Digests of one append: 4 MiB less what chunks take beside them.
const MOST_KEYS: usize = 150_000;
/// Those of them that are from a sealed file.
const MOST_OF_RUN: usize = MOST_KEYS / 2;
/// Digests that were forgotten, beside those: with the ones that are live again 640 KiB.
const MOST_FORGOTTEN: usize = 20_000;
/// Digests of one chunk: 1 MiB.
const MOST_IN_CHUNK: usize = 60_000;
/// How much longer than its keys a chunk is kept: the server's clock may run apart from this one.
const KEPT_LONGER_NS: i64 = 2_000_000_000;

/// How long a full segment waits to be written before it is sealed. A server that does not answer must not
/// hold it up: it keeps logs.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What is acknowledged with an append.
#[derive(Default)]
pub(super) struct Sources {
    /// Chunks, and how many of their digests.
    pub(super) chunks: Vec<(Arc<Segment>, u32, u8)>,
    /// A sealed file, and how many of its pages; all of them if none.
    pub(super) run: Option<(u64, Option<usize>)>,
    /// In case they cannot be written after all.
    pub(super) forgotten: Vec<Digest>,
}

/// Whether the authority lacks records of some segments.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Unsent {
    are: bool,
    /// As [`Owner::begun_again`] was then.
    begun_again: u64,
}

/// Digests with their slices.
pub(super) type Keys = Vec<(u64, Digest)>;

impl Engine {
    /// Pages of a sealed file that is not written. False if there are more.
    pub(super) fn gather_run(
        &self,
        owner: &Owner,
        keys: &mut Keys,
        sources: &mut Sources,
    ) -> Result<bool> {
        let (unsent, slice) = self.ledger.read(|manifest| {
            let unsent = manifest.owner.as_ref().map_or(&[][..], |owner| &owner.unsent);
            let named = manifest.runs.iter().find(|run| unsent.first() == Some(&run.file));
            (unsent.to_vec(), named.map(|run| run.slice))
        });
        let Some(file) = unsent.first().copied() else { return Ok(true) };
        let catalog = self.catalog();
        let mut runs = catalog.slices.iter().flat_map(|slice| &slice.runs);
        let Some(run) = runs.find(|run| run.file == file) else {
            if slice.is_some_and(|slice| catalog.is_live(slice)) {
                // The catalog gets it next.
                return Ok(false);
            }
            // Its slice is over.
            sources.run = Some((file, None));
            return Ok(unsent.len() == 1);
        };
        let (of_file, pages) = *owner.run_pages.lock();
        let mut page = if of_file == file { pages } else { 0 };
        let mut digests = Vec::new();
        while page < run.page_count() && digests.len() < MOST_OF_RUN {
            run.read_page(page, &mut digests)?;
            page += 1;
        }
        keys.extend(digests.into_iter().map(|digest| (run.slice, digest)));
        let whole = page == run.page_count();
        sources.run = Some((file, (!whole).then_some(page)));
        Ok(whole && unsent.len() == 1)
    }

    /// Chunks of the journal that are not written, as far as they are filled now. False if there are more.
    pub(super) fn gather_journal(&self, sources: &mut Sources) -> bool {
        let mut room = MOST_KEYS - MOST_OF_RUN;
        for index in 0..self.shards.len() {
            let shard = self.shards[index].lock();
            for set in shard.frozen.iter().map(|f| &**f).chain(&shard.active) {
                for (number, _, filled) in set.fills() {
                    let sent = set.segment.sent(number);
                    if sent >= filled {
                        continue;
                    }
                    if room < usize::from(filled - sent) {
                        return false;
                    }
                    room -= usize::from(filled - sent);
                    sources.chunks.push((Arc::clone(&set.segment), number, filled));
                }
            }
        }
        true
    }

    /// What was forgotten, in its order. False if there is more.
    pub(super) fn gather_forgotten(&self, owner: &Owner, sources: &mut Sources) -> bool {
        let mut forgotten = owner.forgotten.lock();
        let some = forgotten.len().min(MOST_FORGOTTEN);
        sources.forgotten.extend(forgotten.drain(..some));
        forgotten.is_empty()
    }

    /// Reads the digests of the chunks, when it is decided that they stay: a mark whose sync fails is taken
    /// out again.
    pub(super) fn read_decided(&self, keys: &mut Keys, sources: &Sources) -> Result<()> {
        let any = !sources.chunks.is_empty() || !sources.forgotten.is_empty();
        if any && (self.tools.log.level() == Level::Sync || !sources.forgotten.is_empty()) {
            self.sync_log()?;
        }
        for (segment, number, filled) in &sources.chunks {
            let page = segment.chunk(*number);
            let Ok(Some(chunk::ChunkKind::Digests(slice))) =
                chunk::kind(page, segment.id, *number as usize)
            else {
                continue;
            };
            let slots = usize::from(segment.sent(*number)) + 1..=usize::from(*filled);
            keys.extend(slots.filter_map(|slot| Some((slice, chunk::read_digest(page, slot)?))));
        }
        Ok(())
    }

    /// Leaves out what is forgotten now, what is over, and what was read from the authority. Of the keys
    /// that were `forgotten` those that are live again come with their slices.
    pub(super) fn without_dead(
        &self,
        owner: &Owner,
        mut keys: Keys,
        forgotten: &[Digest],
    ) -> (Keys, Vec<Digest>) {
        let mut dead = HashSet::new();
        for index in 0..self.shards.len() {
            let shard = self.shards[index].lock();
            let gone = shard.tombstones.iter().filter(|(_, t)| !shard.catalog.is_live(t.revived));
            dead.extend(gone.map(|(digest, _)| *digest));
        }
        {
            let mut learned = owner.learned.lock();
            if !learned.is_empty() {
                keys.retain(|key| !learned.remove(key));
            }
        }
        let catalog = self.catalog();
        if !dead.is_empty() {
            keys.retain(|(_, digest)| !dead.contains(digest));
        }
        keys.retain(|(slice, _)| catalog.is_live(*slice));
        for digest in forgotten.iter().filter(|digest| !dead.contains(*digest)) {
            let shard = self.shards[self.shard_of(*digest)].lock();
            let mask = shard.suspects(*digest);
            if let Ok(Some(slice)) = shard.find(*digest, mask) {
                keys.push((slice, *digest));
            }
        }
        (keys, forgotten.to_vec())
    }

    /// Packs digests by slice and bucket.
    pub(super) fn pack(
        &self,
        owner: &Owner,
        writing: &mut Writing,
        mut keys: Keys,
        forgotten: Vec<Digest>,
    ) -> Vec<Chunk> {
        let catalog = self.catalog();
        let mut buckets: BTreeMap<(u64, u32), (Vec<Digest>, Vec<Digest>)> = BTreeMap::new();
        for digest in forgotten {
            // As long as any slice that may hold it.
            let bucket = (catalog.current, owner.part_of(digest));
            buckets.entry(bucket).or_default().0.push(digest);
        }
        keys.sort_unstable();
        for same in keys.chunk_by(|(slice, digest), (other, next)| {
            slice == other && owner.part_of(*digest) == owner.part_of(*next)
        }) {
            let Some((slice, digest)) = same.first() else { continue };
            let bucket = buckets.entry((*slice, owner.part_of(*digest))).or_default();
            bucket.1.extend(same.iter().map(|(_, digest)| *digest));
        }
        // What was forgotten first: a key may have been seen again in an older bucket's slice.
        let (gone, seen): (Vec<_>, Vec<_>) =
            buckets.into_iter().partition(|(_, (forgotten, _))| !forgotten.is_empty());
        let mut chunks = Vec::new();
        for ((slice, part), (forgotten, digests)) in gone.into_iter().chain(seen) {
            for keys in pieces(forgotten, &digests) {
                let number = writing.next_number();
                chunks.extend(chunk_of(
                    owner,
                    &catalog,
                    (slice, part),
                    number,
                    keys,
                    self.config.window_ns,
                ));
            }
        }
        chunks
    }

    /// Whether the authority lacks records of these segments. Where the store is only looked after nobody
    /// writes any.
    pub(in crate::engine) fn is_unsent(&self, segments: &[u64]) -> bool {
        if self.owned.get().is_none() {
            return self.ledger.read(|manifest| manifest.owner.is_some());
        }
        self.shards.iter().any(|shard| {
            let shard = shard.lock();
            let sets = shard.frozen.iter().map(|f| &**f).chain(&shard.active);
            sets.filter(|set| segments.contains(&set.segment.id))
                .any(|set| set.fills().any(|(number, _, filled)| set.segment.sent(number) < filled))
        })
    }

    /// What the sealing of these segments has to know of them when it names its files.
    pub(in crate::engine) fn unsent(&self, segments: &[u64]) -> Unsent {
        // In this order: who begins again takes back what is acknowledged before he counts it.
        let begun_again = self.begun_again();
        Unsent { are: self.is_unsent(segments), begun_again }
    }

    /// Whether files that are named instead of the segments have to be written. Under the lock of the
    /// manifest: all may have to be written again since the segments were looked at. Who finds that out
    /// later finds the files.
    pub(in crate::engine) fn are_unsent(&self, unsent: Unsent) -> bool {
        unsent.are || self.begun_again() != unsent.begun_again
    }

    fn begun_again(&self) -> u64 {
        self.owned.get().map_or(0, |owner| owner.begun_again.load(Acq))
    }

    /// The sealing of these segments can wait a little until they are written: from the journal that is
    /// cheaper.
    pub(in crate::engine) fn is_to_be_written(&self, segments: &[u64]) -> bool {
        let Some(owner) = self.owned.get() else { return false };
        let mut waits_since = owner.sealing_waits.lock();
        if self.is_closed() || self.is_journal_suspect() || !self.is_unsent(segments) {
            *waits_since = None;
            return false;
        }
        let waits = waits_since.get_or_insert_with(Instant::now).elapsed() < LONGEST_WAIT;
        if !waits {
            *waits_since = None;
        }
        waits
    }

    /// Whether nothing is left to write.
    pub(super) fn is_all_written(&self, owner: &Owner) -> bool {
        let is_open = owner.writing.lock().is_open();
        !is_open && owner.forgotten.lock().is_empty() && self.keys_to_write(owner) == 0
    }

    /// Digests that wait to be written, about.
    pub(super) fn keys_to_write(&self, owner: &Owner) -> u64 {
        let mut keys = owner.forgotten.lock().len() as u64;
        for index in 0..self.shards.len() {
            let shard = self.shards[index].lock();
            for set in shard.frozen.iter().map(|f| &**f).chain(&shard.active) {
                let left = set.fills().map(|(number, _, filled)| {
                    u64::from(filled.saturating_sub(set.segment.sent(number)))
                });
                keys += left.sum::<u64>();
            }
        }
        keys + self.ledger.read(|manifest| {
            let unsent = manifest.owner.as_ref().map_or(&[][..], |owner| &owner.unsent);
            let sealed = manifest.runs.iter().filter(|run| unsent.contains(&run.file));
            sealed.map(|run| run.keys).sum::<u64>()
        })
    }
}

/// What is forgotten and what is seen, as much as one chunk may have.
fn pieces(forgotten: Vec<Digest>, digests: &[Digest]) -> Vec<(Vec<Digest>, Vec<Digest>)> {
    let mut pieces: Vec<(Vec<Digest>, Vec<Digest>)> =
        forgotten.chunks(MOST_IN_CHUNK).map(|some| (some.to_vec(), Vec::new())).collect();
    let room = pieces.last().map_or(0, |(forgotten, _)| MOST_IN_CHUNK - forgotten.len());
    let (first, rest) = digests.split_at(digests.len().min(room));
    if let Some((_, digests)) = pieces.last_mut() {
        digests.extend_from_slice(first);
    }
    pieces.extend(rest.chunks(MOST_IN_CHUNK).map(|some| (Vec::new(), some.to_vec())));
    pieces
}

/// A chunk, if its slice is live.
fn chunk_of(
    owner: &Owner,
    catalog: &Catalog,
    (slice, part): (u64, u32),
    number: u64,
    (forgotten, digests): (Vec<Digest>, Vec<Digest>),
    window_ns: i64,
) -> Option<Chunk> {
    let live = catalog.slice(slice)?;
    let start_ns = live.start_ns.saturating_sub(owner.grid.0);
    let slice = u64::try_from(start_ns.max(0)).ok()?.div_ceil(1_000_000);
    // As the name of the slice: the next owner cuts time by the names.
    let end_ns = live.end_ns.saturating_sub(owner.grid.0);
    let over = owner.server_time_after(live.end_ns);
    let expires_ns = over.as_unix_nanos().saturating_add(window_ns + KEPT_LONGER_NS);
    Some(Chunk {
        bucket: Bucket { slice, part },
        number,
        expires: Timestamp::from_unix_nanos(expires_ns),
        data: Packed { end_ns, forgotten, digests }.encode(),
    })
}
