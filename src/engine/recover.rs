//! Reading the journal back: unsealed digests go through the ordinary path into new segments, claims
//! and tombstones are carried over, then the old segments go. A crash in between starts again from
//! the old segments; what was written twice is the same.

use std::sync::atomic::Ordering::Release;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::format::chunk::{self, ChunkKind};
use crate::format::names::{self, Kind};
use crate::format::record;
use crate::journal::Segment;
use crate::replay::Replay;
use crate::shard::control::ClaimState;
use crate::shard::{Call, Target};
use crate::storage::Storage;

pub(super) fn replay(engine: &Engine) -> Result<()> {
    let old = engine.ledger.read(|manifest| manifest.journals.clone());
    let mut call = Call::default();
    let mut control = Replay::default();
    for segment in in_order(engine.ledger.storage(), engine.header.store, &old)? {
        replay_segment(engine, &segment, &mut call, &mut control)?;
    }
    restore_control(engine, control)?;
    settle_claims(engine, &mut call)?;
    engine.tools.journal.release(call.reservation);
    if old.is_empty() {
        return Ok(());
    }
    if engine.has_tombstones() {
        engine.sync_journal()?;
    }
    engine.ledger.update(|manifest| manifest.journals.retain(|id| !old.contains(id)))?;
    old.iter().for_each(|id| engine.remove_file(Kind::Journal, *id));
    Ok(())
}

/// Maps segments in the order in which they were filled.
pub(crate) fn in_order(storage: &dyn Storage, store: StoreId, ids: &[u64]) -> Result<Vec<Segment>> {
    let opened = ids.iter().map(|id| Segment::open(storage, store, *id));
    let mut segments = opened.collect::<Result<Vec<_>>>()?;
    segments.sort_by_key(Segment::order);
    Ok(segments)
}

/// Opening the store has verified the segment already; an error here is one that came since.
fn replay_segment(
    engine: &Engine,
    segment: &Segment,
    call: &mut Call,
    control: &mut Replay,
) -> Result<()> {
    let name = names::numbered(Kind::Journal, segment.id);
    let damaged = |why: &str| Error::corrupt(engine.ledger.storage().path(&name), why);
    for number in 0..segment.chunks() {
        let chunk = segment.chunk(number);
        match chunk::kind(chunk, segment.id, number as usize).map_err(damaged)? {
            None => {}
            Some(ChunkKind::Digests(slice)) => {
                restore_digests(engine, chunk::digests(chunk), slice, call)?;
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
    call: &mut Call,
) -> Result<()> {
    let catalog = engine.catalog();
    let Some(live) = catalog.slice(slice) else { return Ok(()) };
    let target = Target { slice, column: live.column };
    let mut restored = 0;
    for digest in digests {
        let mut shard = engine.enter(engine.shard_of(digest))?;
        shard.restore(&engine.tools, call, digest, target)?;
        restored += 1;
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
    for (digest, claim) in control.claims {
        let state = ClaimState {
            token: claim.token,
            deadline_ns: claim.deadline_ns,
            lease_ns: engine.config.lease_ns,
            orphaned: true,
            note: claim.note.into(),
        };
        engine.enter(engine.shard_of(digest))?.put_claim(&engine.tools, digest, state);
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
            if shard.find(digest, mask)?.is_some() {
                shard.drop_claim(&engine.tools, digest);
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
    /// Lets background work begin, with what opening found to be due.
    pub(super) fn begin_background(&self) {
        self.maintenance.ready.store(true, Release);
        self.schedule_seal();
        self.schedule_merge();
        self.schedule_rebuild();
    }
}
