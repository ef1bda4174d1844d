//! Reading the journal back: unsealed digests go through the ordinary path into new segments, claims
//! and tombstones are carried over, then the old segments go. A crash in between starts again from
//! the old segments; what was written twice is the same.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Release;

use super::Engine;
use super::open::{Source, open_if_there};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::format::chunk::{self, ChunkKind};
use crate::format::kept::Gathered;
use crate::format::log::Entry;
use crate::format::names::{self, Kind};
use crate::format::record::{self, Record};
use crate::journal::Segment;
use crate::log::Level;
use crate::replay::Replay;
use crate::shard::control::{ClaimState, Remote};
use crate::shard::{Call, Target};
use crate::storage::Storage;

/// With `sent`, the journal's word for what an authority has is kept.
pub(super) fn replay(engine: &Engine, source: Source, sent: bool) -> Result<()> {
    let old = engine.ledger.read(|manifest| manifest.journals.clone());
    let old_logs: Vec<u64> =
        engine.ledger.read(|manifest| manifest.logs.iter().map(|log| log.file).collect());
    let mut control = Replay::default();
    let mut batch = Batch::begin(engine)?;
    match source {
        Source::Journal => {
            let segments = in_order(engine.ledger.storage(), engine.header.store, &old)?;
            let again = sent.then(|| seen_again(&segments));
            if let Some(again) = &again {
                for segment in &segments {
                    replay_sent(engine, (segment, again), &mut batch)?;
                }
                engine.note_all_sent();
            }
            for segment in &segments {
                replay_segment(engine, (segment, again.as_ref()), &mut batch, &mut control)?;
            }
        }
        Source::Logs { logged, chunks } => {
            if chunks {
                replay_chunks(engine, &old, &mut batch)?;
            }
            for entry in logged.entries {
                match entry {
                    Entry::Digests(slice, digests) => {
                        restore_digests(engine, digests.into_iter(), slice, &mut batch)?;
                    }
                    Entry::Record(record) => control.apply(record),
                    Entry::Count(..) => {}
                }
            }
        }
        Source::Nothing(_) => {}
    }
    let kept = std::mem::take(&mut control.kept);
    restore_control(engine, control)?;
    settle_claims(engine, &mut batch.call)?;
    // After tombstones that have expired are gone.
    restore_kept(engine, kept, &mut batch.call)?;
    batch.end()?;
    engine.sync_log()?;
    let level = engine.tools.log.level();
    if level < Level::Interval {
        // The old files may have been synced.
        engine.sync_journals()?;
    }
    let same_level = engine.ledger.read(|manifest| manifest.level) == level.code();
    if !(old.is_empty() && old_logs.is_empty() && same_level) {
        engine.ledger.update(|manifest| {
            manifest.journals.retain(|id| !old.contains(id));
            manifest.logs.retain(|log| !old_logs.contains(&log.file));
            manifest.level = level.code();
        })?;
    }
    old.iter().for_each(|id| engine.remove_file(Kind::Journal, *id));
    old_logs.iter().for_each(|id| engine.remove_file(Kind::Log, *id));
    Ok(())
}

/// Digests that are restored together: one block of the log.
const BATCH: usize = 1 << 16;

/// A call that is ended and begun again now and then.
struct Batch<'a> {
    engine: &'a Engine,
    call: Call,
}

impl<'a> Batch<'a> {
    fn begin(engine: &'a Engine) -> Result<Self> {
        Ok(Batch { engine, call: engine.begin()? })
    }

    fn end(self) -> Result<()> {
        self.engine.finish(self.call)
    }

    fn go_on(&mut self) -> Result<()> {
        self.engine.finish(std::mem::take(&mut self.call))?;
        self.engine.sync_log()?;
        self.call = self.engine.begin()?;
        Ok(())
    }
}

/// Restores the digests of all chunks that reached the disk.
fn replay_chunks(engine: &Engine, ids: &[u64], batch: &mut Batch<'_>) -> Result<()> {
    let (storage, store) = (engine.ledger.storage(), engine.header.store);
    for id in ids {
        let Some(segment) = open_if_there(Segment::open(storage, store, *id))? else { continue };
        for number in 0..segment.chunks() {
            let chunk = segment.chunk(number);
            if let Ok(Some(ChunkKind::Digests(slice))) = chunk::kind(chunk, *id, number as usize) {
                restore_digests(engine, chunk::digests(chunk), slice, batch)?;
            }
        }
    }
    Ok(())
}

/// Maps segments in the order in which they were filled.
pub(crate) fn in_order(storage: &dyn Storage, store: StoreId, ids: &[u64]) -> Result<Vec<Segment>> {
    let opened = ids.iter().map(|id| Segment::open(storage, store, *id));
    let mut segments = opened.collect::<Result<Vec<_>>>()?;
    segments.sort_by_key(Segment::order);
    Ok(segments)
}

/// Digests that were forgotten and seen again. They are there twice and become one, of which the journal's word
/// is not kept: an authority may have the first, and that it was forgotten.
fn seen_again(segments: &[Segment]) -> HashSet<Digest> {
    let mut seen_again = HashSet::new();
    for segment in segments {
        for number in 0..segment.chunks() {
            let (chunk, at) = (segment.chunk(number), number as usize);
            if let Ok(Some(ChunkKind::Control(_))) = chunk::kind(chunk, segment.id, at) {
                // What is damaged is found when all records are applied.
                seen_again.extend(record::records(chunk).flatten().filter_map(revived));
            }
        }
    }
    seen_again
}

fn revived(record: Record<'_>) -> Option<Digest> {
    match record {
        Record::Revived { digest, .. } => Some(digest),
        _ => None,
    }
}

/// Restores the digests that an authority has: first, so that they are the first of their new chunks.
fn replay_sent(
    engine: &Engine,
    (segment, again): (&Segment, &HashSet<Digest>),
    batch: &mut Batch<'_>,
) -> Result<()> {
    for number in 0..segment.chunks() {
        let (chunk, sent) = (segment.chunk(number), usize::from(segment.sent(number)));
        if sent > 0
            && let Ok(Some(ChunkKind::Digests(slice))) =
                chunk::kind(chunk, segment.id, number as usize)
        {
            let digests = (1..=sent).filter_map(|slot| chunk::read_digest(chunk, slot));
            let digests = digests.filter(|digest| !again.contains(digest));
            restore_digests(engine, digests, slice, batch)?;
        }
    }
    Ok(())
}

/// Opening the store has verified the segment already; an error here is one that came since.
/// With `again`, what an authority has is there already, but for those.
fn replay_segment(
    engine: &Engine,
    (segment, again): (&Segment, Option<&HashSet<Digest>>),
    batch: &mut Batch<'_>,
    control: &mut Replay,
) -> Result<()> {
    let name = names::numbered(Kind::Journal, segment.id);
    let damaged = |why: &str| Error::corrupt(engine.ledger.storage().path(&name), why);
    for number in 0..segment.chunks() {
        let chunk = segment.chunk(number);
        match chunk::kind(chunk, segment.id, number as usize).map_err(damaged)? {
            None => {}
            Some(ChunkKind::Digests(slice)) => {
                let sent = again.map_or(0, |_| usize::from(segment.sent(number)));
                let is_there = |slot: usize, digest: &Digest| {
                    slot <= sent && again.is_some_and(|again| !again.contains(digest))
                };
                let digests = (1..chunk::SLOTS).filter_map(|slot| {
                    let digest = chunk::read_digest(chunk, slot)?;
                    (!is_there(slot, &digest)).then_some(digest)
                });
                restore_digests(engine, digests, slice, batch)?;
            }
            Some(ChunkKind::Control(_)) => {
                for record in record::records(chunk) {
                    control.apply(record.map_err(damaged)?);
                }
            }
        }
    }
    Ok(())
}

fn restore_digests(
    engine: &Engine,
    digests: impl Iterator<Item = crate::digest::Digest>,
    slice: u64,
    batch: &mut Batch<'_>,
) -> Result<()> {
    let catalog = engine.catalog();
    let Some(live) = catalog.slice(slice) else { return Ok(()) };
    let target = Target { slice, column: live.column };
    let mut restored = 0;
    for digest in digests {
        let mut shard = engine.enter(engine.shard_of(digest))?;
        shard.restore(&engine.tools, &mut batch.call, digest, target)?;
        drop(shard);
        restored += 1;
        if batch.call.logged.len() >= BATCH {
            batch.go_on()?;
        }
    }
    engine.recovery.lock().replayed_keys += restored;
    Ok(())
}

/// Gives claims and tombstones to the shards.
fn restore_control(engine: &Engine, control: Replay) -> Result<()> {
    for (digest, tombstone) in control.tombstones {
        let mut shard = engine.enter(engine.shard_of(digest))?;
        if shard.catalog.is_live(tombstone.newest) {
            shard.count(tombstone.newest, -1);
            engine.tools.quota.give_back(1);
        }
        shard.tombstones.insert(digest, tombstone);
    }
    for (digest, value) in control.values {
        engine.enter(engine.shard_of(digest))?.restore_asked(digest, &value);
    }
    for (digest, claim) in control.claims {
        let state = ClaimState {
            token: claim.token,
            deadline_ns: claim.deadline_ns,
            lease_ns: engine.config.lease_ns,
            event_ns: claim.event_ns,
            orphaned: true,
            note: claim.note.into(),
            remote: Remote::default(),
            kept: None,
        };
        engine.enter(engine.shard_of(digest))?.put_claim(&engine.tools, digest, state);
    }
    Ok(())
}

/// Puts back what is kept with marks that are there.
fn restore_kept(
    engine: &Engine,
    kept: HashMap<(Digest, u64, u8), Gathered>,
    call: &mut Call,
) -> Result<()> {
    for ((digest, slice, tag), gathered) in kept {
        if let Some(bytes) = gathered.whole() {
            let mut shard = engine.enter(engine.shard_of(digest))?;
            shard.restore_kept(&engine.tools, call, digest, (slice, tag), &bytes)?;
        }
    }
    Ok(())
}

/// Drops claims of keys that are live (their commit came before the crash), and carries the others
/// and the tombstones over.
fn settle_claims(engine: &Engine, call: &mut Call) -> Result<()> {
    for index in 0..engine.shards.len() {
        let mut shard = engine.enter(index)?;
        let oldest = shard.catalog.slices[0].sequence;
        shard.tombstones.retain(|_, tombstone| tombstone.newest >= oldest);
        let claimed: Vec<_> = shard.claims.keys().copied().collect();
        for digest in claimed {
            let mask = shard.suspects(digest);
            match shard.find(digest, mask) {
                Ok(None) => {}
                Ok(Some(_)) => drop(shard.drop_claim(&engine.tools, digest)),
                // Whether it is live nobody knows any more: the claim stays and is granted to the next
                // who asks, and the slice is not vouched for.
                Err(error @ Error::Corrupt { .. }) => engine.note_lost(&shard.catalog, &error)?,
                Err(error) => return Err(error),
            }
        }
        shard.carry_over(&engine.tools, call)?;
        let mut report = engine.recovery.lock();
        report.replayed_claims += shard.claims.len() as u64;
        report.replayed_tombstones += shard.tombstones.len() as u64;
    }
    Ok(())
}

impl Engine {
    /// All that is in the journal now an authority has.
    fn note_all_sent(&self) {
        for shard in &self.shards {
            let shard = shard.lock();
            for set in shard.frozen.iter().map(|f| &**f).chain(&shard.active) {
                for (number, _, filled) in set.fills() {
                    set.segment.set_sent(number, filled);
                }
            }
        }
    }

    /// Lets background work begin, with what opening found to be due.
    pub(super) fn begin_background(&self) {
        self.maintenance.ready.store(true, Release);
        self.schedule_space();
        self.schedule_seal();
        self.schedule_merge();
        self.schedule_rebuild();
    }
}

#[cfg(all(test, feature = "test-storage", not(loom)))]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use crate::config::{Builder, OnOutage};
    use crate::engine::{Attempt, Wish, open_simulated};
    use crate::storage::sim::SimDisk;
    use crate::time::ManualClock;

    /// A process that dies between the digest of a commit and its record leaves a live key with a claim.
    #[test]
    fn a_commit_that_was_cut_short_is_settled_by_the_next_open() {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(UNIX_EPOCH + Duration::from_secs(1)));
        let open = |disk: &SimDisk| {
            let builder = Builder::default().window(Duration::from_secs(60)).clock(clock.clone());
            open_simulated(builder.settings.validate().unwrap(), disk).unwrap()
        };
        let engine = open(&disk);
        let digest = |name: &[u8]| engine.root_hasher().digest(name);
        let (cut_short, in_flight) = (digest(b"cut short"), digest(b"in flight"));
        for digest in [cut_short, in_flight] {
            let claimed = engine.claim(digest, None, Wish::default(), OnOutage::Fail).unwrap();
            assert!(matches!(claimed, Attempt::Granted(_)));
        }
        let mut call = engine.begin().unwrap();
        let mut shard = engine.enter(engine.shard_of(cut_short)).unwrap();
        let target = shard.current();
        shard.record(&engine.tools, &mut call, cut_short, target).unwrap();
        drop(shard);
        let killed = disk.snapshot().after_kill();
        let engine = open(&killed);
        let live = |digest| engine.contains(digest, OnOutage::Fail).unwrap();
        assert!(live(cut_short) && !live(in_flight));
        let claimed = engine.claim(cut_short, None, Wish::default(), OnOutage::Fail).unwrap();
        assert!(matches!(claimed, Attempt::Duplicate(_)), "the claim of a live key was kept");
        let claimed = engine.claim(in_flight, None, Wish::default(), OnOutage::Fail).unwrap();
        assert!(matches!(claimed, Attempt::Granted(_)));
        assert_eq!(engine.stats().recovery.replayed_claims, 1);
    }
}
