//! What the store tells about itself: statistics and explanations.

use std::path::PathBuf;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use super::Engine;
use crate::digest::Digest;
use crate::error::Result;
use crate::explain::{Explanation, KeyState, KeyTrace, sightings};
use crate::filter::{Filter, SAMPLE_BLOCKS, SAMPLE_FILTERS, Sample};
use crate::shard::Shard;
use crate::stats::{SliceStats, Stats};
use crate::time::Timestamp;

impl Engine {
    /// What messages call the store.
    pub(super) fn path(&self) -> PathBuf {
        // Without the slash at its end.
        self.ledger.storage().path("").components().collect()
    }

    /// Shows the outside how the store is doing.
    pub(super) fn publish_meters(&self) {
        // Closing waits for it: when the store is closed nobody looks into its files any more.
        let _gate = self.maintenance.gate.read();
        if !self.is_closed() && !self.maintenance.stop.load(Acquire) {
            let store = self.path();
            self.meters.publish(&store.to_string_lossy(), || {
                let since_ns = self.guaranteed_since().as_unix_nanos();
                let coverage_ns = self.window_now().saturating_sub(since_ns).max(0);
                (self.stats(), Duration::from_nanos(coverage_ns.unsigned_abs()))
            });
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        if self.tick().is_err() {
            return Stats::default();
        }
        let mut stats = Stats {
            filter_capacity: self.maintenance.filter_keys.load(Acquire),
            disk_bytes: self.ledger.storage().allocated_bytes(),
            recovery: self.recovery.lock().clone(),
            write_back_failed: self.is_journal_suspect(),
            authority: self.authority_stats(),
            shadow: self.let_through.stats(),
            owner: self.owned.get().map(|owner| self.owner_stats(owner)),
            ..Stats::default()
        };
        (stats.background_errors, stats.last_background_error) = self.maintenance.errors();
        let catalog = self.catalog();
        let mut fill = Sample::default();
        for (index, shard) in self.shards.iter().enumerate() {
            let mut shard = shard.lock();
            let _ = self.update(&mut shard);
            add_shard(&mut stats, &shard);
            if let Some(filter) = shard.filter.as_ref().filter(|_| index < SAMPLE_FILTERS) {
                filter.sample(SAMPLE_BLOCKS, &mut fill);
            }
        }
        stats.filter_fill = fill.fill(catalog.live_columns);
        stats.slices = self.slice_stats();
        let counted = stats.keys_live.cast_signed() + self.tools.quota.opened_with();
        stats.keys_live = counted.max(0).unsigned_abs();
        let runs = catalog.slices.iter().flat_map(|slice| &slice.runs);
        stats.memory_bytes += runs.map(|run| run.index_bytes()).sum::<u64>();
        let values = catalog.slices.iter().flat_map(|slice| &slice.values);
        stats.memory_bytes += values.map(|values| values.memory_bytes()).sum::<u64>();
        let open = self.tools.journal.open_segments();
        stats.memory_bytes += open.iter().map(|s| s.memory_bytes()).sum::<u64>();
        stats.memory_bytes += self.tools.log.memory_bytes();
        let asked = stats.filter_false_positive + stats.new;
        if asked > 0 {
            stats.false_positive_rate =
                stats.filter_false_positive as f64 / stats.new.max(1) as f64;
        }
        stats.filter_negative = stats.new.saturating_sub(stats.filter_false_positive);
        stats
    }

    fn authority_stats(&self) -> Option<crate::stats::AuthorityStats> {
        let owned = || self.owned.get().map(|owner| owner.stats());
        let stats = self.shared().map(super::shared::Shared::stats).or_else(owned);
        let legacy_duplicate = self.legacy_found();
        stats.map(|stats| crate::stats::AuthorityStats { legacy_duplicate, ..stats })
    }

    fn slice_stats(&self) -> Vec<SliceStats> {
        let incomplete = self.ledger.read(|manifest| {
            let holes = manifest.holes.iter().map(|hole| (hole.from_ns, hole.to_ns));
            holes.chain([(i64::MIN, manifest.complete_since_ns)]).collect::<Vec<_>>()
        });
        let window_ns = self.config.window_ns;
        self.catalog()
            .slices
            .iter()
            .map(|slice| SliceStats {
                sequence: slice.sequence,
                start: Timestamp::from_unix_nanos(slice.start_ns),
                end: Timestamp::from_unix_nanos(slice.end_ns),
                expires: Timestamp::from_unix_nanos(slice.end_ns.saturating_add(window_ns)),
                sealed_keys: slice.runs.iter().map(|run| run.keys).sum(),
                sealed_parts: slice.runs.len() as u64,
                complete: !self.is_journal_suspect()
                    && !incomplete
                        .iter()
                        .any(|(from, to)| *from < slice.end_ns && slice.start_ns < *to),
            })
            .collect()
    }

    pub(crate) fn explain(&self, digest: Digest) -> Result<Explanation> {
        self.tick()?;
        let now_ns = self.time.now();
        self.with_shard(digest, |shard, _| {
            let mask = shard.suspects(digest);
            let suspects = shard.catalog.suspects(mask).map(|slice| slice.sequence);
            let mut suspected: Vec<u64> = suspects.collect();
            suspected.reverse();
            let unsealed = unsealed(shard, digest);
            let sightings = sightings(&shard.catalog.slices, &unsealed, digest)?;
            let state = if let Some(claim) = shard.claims.get(&digest) {
                KeyState::InFlight {
                    token: claim.public_token(),
                    lease_left: claim.lease_left(now_ns),
                }
            } else if shard.tombstones.contains_key(&digest) && shard.find(digest, mask)?.is_none()
            {
                KeyState::Forgotten
            } else if let Some(newest) = sightings.last() {
                KeyState::live(newest, self.config.window_ns)
            } else {
                KeyState::Unknown
            };
            let trace = match shard.find(digest, mask)? {
                Some(slice) if self.keeps() => {
                    let kept = shard.kept(&self.tools, digest, slice)?;
                    KeyTrace::new(kept, shard.refused(&self.tools, digest, slice)?)
                }
                _ => None,
            };
            Ok(Explanation {
                trace,
                shadow: self.is_shadow(),
                state,
                digest: format!("{:016x}{:016x}", digest.hi, digest.lo),
                suspected_slices: shard.filter.is_some().then_some(suspected),
                sightings,
            })
        })
    }
}

fn add_shard(stats: &mut Stats, shard: &Shard) {
    let counters = &shard.counters;
    stats.new += shard.new;
    stats.duplicate += counters.duplicate;
    stats.too_old += counters.too_old;
    stats.in_flight += counters.in_flight;
    stats.claims_granted += counters.claims_granted;
    stats.claims_committed += counters.claims_committed;
    stats.claims_abandoned += counters.claims_abandoned;
    stats.claims_held += shard.claims.len() as u64;
    stats.forgotten += counters.forgotten;
    stats.refreshed += counters.refreshed;
    stats.conflicts += counters.conflicts;
    stats.filter_positive += counters.filter_positive;
    stats.filter_false_positive += counters.filter_false_positive;
    stats.filters_rebuilding += u64::from(shard.filter.is_none() || shard.building.is_some());
    let is_passing = shard.filter.as_ref().is_some_and(Filter::is_passing);
    stats.filters_in_memory += u64::from(is_passing);
    let filters = [&shard.filter, &shard.building];
    for filter in filters.into_iter().flatten() {
        stats.memory_bytes += Filter::bytes(filter.blocks());
    }
    for unsealed in shard.frozen.iter().map(|f| &**f).chain(&shard.active) {
        stats.memory_bytes += unsealed.memory_bytes();
    }
    // Forgotten keys of before count down, so a part may be negative; the sum is not.
    let live = shard.keys_recorded();
    stats.keys_live = stats.keys_live.wrapping_add_signed(live);
    for frozen in &shard.frozen {
        stats.memory_bytes += frozen.records() * 16;
    }
    stats.memory_bytes += (shard.claims.capacity() * 96 + shard.tombstones.capacity() * 32) as u64;
}

/// Slices that have an unsealed record of the digest.
fn unsealed(shard: &Shard, digest: Digest) -> Vec<u64> {
    let mut slices = Vec::new();
    for set in shard.frozen.iter().map(|f| &**f).chain(&shard.active) {
        set.find_all(digest, &mut slices);
    }
    slices
}
