//! Reading the journal back: unsealed digests go through the ordinary path into new segments, claims
//! and tombstones are carried over, then the old segments go. A crash in between starts again from
//! the old segments; what was written twice is the same.

use std::sync::atomic::Ordering::Release;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::chunk::{self, ChunkKind};
use crate::format::manifest::Hole;
use crate::format::names::Kind;
use crate::format::record;
use crate::journal::Segment;
use crate::shard::{Call, Target};

pub(super) fn replay(engine: &Engine) -> Result<()> {
    let old = engine.ledger.read(|manifest| manifest.journals.clone());
    let mut call = Call::default();
    let mut damage = Vec::new();
    for id in &old {
        match Segment::open(engine.ledger.storage(), engine.header.store, *id) {
            Ok(segment) => replay_segment(engine, &segment, &mut call, &mut damage)?,
            Err(Error::Corrupt { file, detail }) => {
                damage.push(Error::corrupt(file, detail).to_string());
            }
            Err(Error::Io { source, path, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                damage.push(format!("{} is missing", path.display()));
            }
            Err(error) => return Err(error),
        }
    }
    settle_claims(engine, &mut call)?;
    engine.tools.journal.release(call.reservation);
    if old.is_empty() {
        return Ok(());
    }
    let now_ns = engine.window_now();
    engine.ledger.update(|manifest| {
        manifest.journals.retain(|id| !old.contains(id));
        for reason in &damage {
            let hole = Hole { from_ns: i64::MIN, to_ns: now_ns, reason: reason.clone() };
            manifest.holes.push(hole);
        }
    })?;
    engine.recovery.lock().damage.extend(damage);
    old.iter().for_each(|id| engine.remove_file(Kind::Journal, *id));
    Ok(())
}

fn replay_segment(
    engine: &Engine,
    segment: &Segment,
    call: &mut Call,
    damage: &mut Vec<String>,
) -> Result<()> {
    for number in 0..segment.chunks() {
        let chunk = segment.chunk(number);
        match chunk::kind(chunk, segment.id, number as usize) {
            Ok(None) => {}
            Ok(Some(ChunkKind::Digests(slice))) => {
                restore_digests(engine, chunk::digests(chunk), slice, call)?;
            }
            Ok(Some(ChunkKind::Control(_))) => {
                for record in record::records(chunk) {
                    match record {
                        Ok(record) => {
                            let index = engine.shard_of(record.digest);
                            engine.enter(index)?.replay(&record);
                        }
                        Err(why) => damage.push(format!("journal {:x}: {why}", segment.id)),
                    }
                }
            }
            Err(why) => damage.push(format!("journal {:x}: {why}", segment.id)),
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

/// Drops claims of keys that are live (their commit came before the crash), and carries the others
/// and the tombstones over.
fn settle_claims(engine: &Engine, call: &mut Call) -> Result<()> {
    for index in 0..engine.shards.len() {
        let mut shard = engine.enter(index)?;
        let oldest = shard.catalog.slices[0].sequence;
        shard.tombstones.retain(|_, newest| *newest >= oldest);
        let claimed: Vec<_> = shard.claims.keys().copied().collect();
        for digest in claimed {
            let mask = shard.suspects(digest);
            if shard.find(digest, mask)?.is_some() {
                shard.claims.remove(&digest);
            }
        }
        shard.carry_over(&engine.tools, call)?;
        engine.claims.moved(0, shard.claims.len());
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
