//! One shard: its part of the filter, its unsealed records, its claims. Decides verdicts.
//!
//! Everything here runs under the shard's lock. The order "journal, then publish" is decided in
//! [`Shard::make_known`]: a digest is in the journal before the filter shows it, and both before the
//! caller hears of it.

pub(crate) mod active;
pub(crate) mod asked;
pub(crate) mod control;
pub(crate) mod held;
pub(crate) mod kept;
mod lookup;
mod pending;
mod refresh;
pub(crate) mod together;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use active::{Active, Taker};
use asked::Asked;
use control::ClaimState;
use held::ClaimsHeld;
use pending::{Mark, Pending};

use crate::catalog::Catalog;
use crate::digest::{Digest, DigestMap};
use crate::error::{Error, Result};
use crate::exact::index::Index;
use crate::filter::{Filter, Place};
use crate::journal::{Journal, Reservation, Segment};
use crate::log::Log;
use crate::quota::Quota;
use crate::replay::Tombstone;
use crate::sync::{AtomicBool, AtomicUsize, Mutex};
use crate::verdict::Verdict;

/// What a shard works with; shared by all shards of a store.
pub(crate) struct Tools {
    pub(crate) journal: Journal,
    pub(crate) log: Log,
    pub(crate) quota: Quota,
    pub(crate) refresh_on_duplicate: bool,
    /// What tells of claims and refused duplicates is kept.
    pub(crate) traces: bool,
    /// The store refreshes, or did so before it was opened: several slices may hold a key.
    pub(crate) holds_refreshed: bool,
    /// Records of a shard in one segment, about.
    pub(crate) index_records: AtomicUsize,
    pub(crate) claims_held: ClaimsHeld,
    /// Something is kept with a mark, or was.
    pub(crate) has_kept: AtomicBool,
    /// Emptied indexes, ready to be used again.
    pub(crate) indexes: Mutex<Vec<Index>>,
}

impl Tools {
    fn index(&self) -> Index {
        let emptied = self.indexes.lock().pop();
        let records = self.index_records.load(Relaxed);
        // One of before segments became larger would have long chains.
        emptied.filter(|index| index.suits(records)).unwrap_or_else(|| Index::new(records))
    }

    /// Keeps an emptied index for the next segment.
    pub(crate) fn recycle(&self, index: Index) {
        self.indexes.lock().push(index);
    }
}

/// Space and news that go with one call.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) reservation: Reservation,
    /// Room for new keys was taken from the quota before the call.
    pub(crate) quota_taken: bool,
    /// A segment was begun: the one before can be sealed.
    pub(crate) began_segment: bool,
    /// The epoch of the log that the call is in, zero if in none.
    pub(crate) epoch: u64,
    /// Marks for the log, each with its slice.
    pub(crate) logged: Vec<(u64, Digest)>,
    /// The answer waits for this epoch, zero for none.
    pub(crate) wait: u64,
    /// The call marked something that it has to bring to the disk.
    pub(crate) must_sync: bool,
}

/// What happened in a shard since the store was opened, beside new keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) duplicate: u64,
    pub(crate) too_old: u64,
    pub(crate) in_flight: u64,
    pub(crate) claims_granted: u64,
    pub(crate) claims_committed: u64,
    pub(crate) claims_abandoned: u64,
    pub(crate) forgotten: u64,
    pub(crate) refreshed: u64,
    pub(crate) conflicts: u64,
    pub(crate) filter_positive: u64,
    pub(crate) filter_false_positive: u64,
}

/// The order of the fields is their order in memory, and the lock is before them: what every new key
/// writes lies in one line with it. Lines that are only read stay in the caches of all cores.
#[repr(C)]
pub(crate) struct Shard {
    pub(crate) catalog: Arc<Catalog>,
    /// Keys recorded since the store was opened, by slice: the one counted last.
    counted: (u64, i64),
    /// New keys since the store was opened.
    pub(crate) new: u64,
    pub(crate) active: Option<Active>,
    /// `None` while it is rebuilt from nothing: every slice is suspected then.
    pub(crate) filter: Option<Filter>,
    pub(crate) claims: DigestMap<ClaimState>,
    /// Its number among the shards.
    number: usize,
    /// Forgotten digests.
    pub(crate) tombstones: DigestMap<Tombstone>,
    pub(crate) closed: bool,
    pub(crate) counters: Counters,
    /// The filter that will replace the one in use; gets every new key too.
    pub(crate) building: Option<Filter>,
    /// Full, waiting to be sealed; oldest first.
    pub(crate) frozen: Vec<Arc<Active>>,
    /// Keys recorded in other slices than the one counted last.
    counted_before: Vec<(u64, i64)>,
    /// What was recorded again in segments that are not sealed yet.
    refreshed: Vec<refresh::Refreshed>,
    /// Marks that are not on the disk yet, oldest first.
    pending: VecDeque<Pending>,
    /// Digests that the authority is being asked about, or never answered.
    asked: DigestMap<Asked>,
}

/// The slice a new key goes to.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) slice: u64,
    pub(crate) column: u32,
}

impl Shard {
    pub(crate) fn new(number: usize, catalog: Arc<Catalog>) -> Self {
        Shard {
            catalog,
            number,
            filter: None,
            building: None,
            active: None,
            frozen: Vec::new(),
            claims: DigestMap::default(),
            tombstones: DigestMap::default(),
            counted: (0, 0),
            counted_before: Vec::new(),
            refreshed: Vec::new(),
            new: 0,
            counters: Counters::default(),
            pending: VecDeque::new(),
            asked: DigestMap::default(),
            closed: false,
        }
    }

    #[inline]
    pub(crate) fn current(&self) -> Target {
        Target { slice: self.catalog.current, column: self.catalog.current_column }
    }

    /// Takes over a newer catalog.
    #[cold]
    pub(crate) fn adopt(&mut self, catalog: &Arc<Catalog>, quota: &Quota) {
        if catalog.version <= self.catalog.version {
            return;
        }
        self.catalog = Arc::clone(catalog);
        self.counted_before.push(std::mem::take(&mut self.counted));
        self.counted_before.retain(|(slice, keys)| {
            let live = catalog.is_live(*slice);
            if !live {
                quota.give_back(*keys);
            }
            live
        });
        let oldest = catalog.slices[0].sequence;
        self.tombstones.retain(|_, tombstone| tombstone.newest >= oldest);
        self.drop_old_questions();
    }

    /// Marks a key of which the filter alone can say that it is new; else the columns to look in.
    /// The caller counts what was marked, many keys at a time.
    #[inline(always)]
    pub(crate) fn mark_if_new(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
    ) -> Result<Option<u64>> {
        let live = self.catalog.live_columns;
        let Some(filter) = &self.filter else { return Ok(Some(live)) };
        let place = filter.place(digest);
        let mask = filter.probe(place, target.slice) & live;
        if mask != 0 || !self.claims.is_empty() {
            return Ok(Some(mask));
        }
        self.make_known(tools, call, digest, target, Some(place))?;
        Ok(None)
    }

    /// Checks and marks.
    #[inline]
    pub(crate) fn observe(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
        now_ns: impl FnOnce() -> i64,
    ) -> Result<Verdict> {
        let mask = self.suspects(digest);
        if !self.claims.is_empty() {
            self.displace_claim(tools, call, digest, now_ns)?;
        }
        let Some(seen) = self.find_counted(digest, mask)? else {
            self.record(tools, call, digest, target)?;
            return Ok(Verdict::New);
        };
        self.seen_again(tools, call, digest, seen, target)?;
        Ok(Verdict::Duplicate)
    }

    /// Marks a key and counts it.
    pub(crate) fn record(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
    ) -> Result<()> {
        self.make_known(tools, call, digest, target, None)?;
        self.count_new(target, 1);
        Ok(())
    }

    /// Counts keys that were made known.
    #[inline(always)]
    pub(crate) fn count_new(&mut self, target: Target, keys: u32) {
        self.count(target.slice, i64::from(keys));
        self.new += u64::from(keys);
    }

    /// The one place where a key becomes known: journal, then publish.
    #[inline(always)]
    fn make_known(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
        place: Option<Place>,
    ) -> Result<()> {
        if tools.quota.is_limited() {
            self.journal_within_quota(tools, call, digest, target)?;
        } else {
            self.journal_new(tools, call, digest, target)?;
        }
        self.publish(digest, target, place);
        Ok(())
    }

    #[inline(never)]
    fn journal_within_quota(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
    ) -> Result<()> {
        if call.quota_taken {
            return self.journal_new(tools, call, digest, target);
        }
        tools.quota.take(1)?;
        let journaled = self.journal_new(tools, call, digest, target);
        if journaled.is_err() {
            tools.quota.give_back(1);
        }
        journaled
    }

    #[inline(always)]
    fn journal_new(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
    ) -> Result<()> {
        self.journal_digest(tools, call, digest, target)?;
        let tombstone = match self.tombstones.is_empty() {
            true => None,
            false => self.revive(tools, call, digest, target.slice)?,
        };
        if call.epoch > 0 {
            self.log_mark(tools, call, digest, target, tombstone);
        }
        Ok(())
    }

    /// Logs a mark.
    #[inline(never)]
    fn log_mark(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
        tombstone: Option<Tombstone>,
    ) {
        if tools.log.has_marks() {
            call.logged.push((target.slice, digest));
            let mark = || Mark::Recorded(target.slice, tombstone);
            self.note_pending(&tools.log, call, digest, mark);
        }
    }

    /// Writes the digest to the journal.
    #[inline(always)]
    fn journal_digest(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
    ) -> Result<()> {
        if let Some(active) = &mut self.active
            && active.has_room(target.slice)
        {
            active.append(digest, target.column);
            return Ok(());
        }
        self.journal_in_next_chunk(tools, call, digest, target)
    }

    #[cold]
    #[inline(never)]
    fn journal_in_next_chunk(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
    ) -> Result<()> {
        self.add_chunk(tools, call, |active, chunk| active.add_chunk(chunk, target.slice))?;
        let active = self.active.as_mut().ok_or(Error::Closed)?;
        active.append(digest, target.column);
        Ok(())
    }

    /// Shows the digest to later calls.
    #[inline(always)]
    fn publish(&mut self, digest: Digest, target: Target, place: Option<Place>) {
        let current = self.catalog.current;
        if let Some(filter) = &self.filter {
            let place = place.unwrap_or_else(|| filter.place(digest));
            filter.insert(place, target.column, current);
        }
        if self.building.is_some() {
            self.publish_in_building(digest, target);
        }
    }

    /// Shows a digest that a sealed part has.
    pub(crate) fn show(&mut self, digest: Digest, target: Target) {
        self.publish(digest, target, None);
    }

    #[cold]
    #[inline(never)]
    fn publish_in_building(&self, digest: Digest, target: Target) {
        if let Some(building) = &self.building {
            building.insert(building.place(digest), target.column, self.catalog.current);
        }
    }

    #[inline(always)]
    pub(crate) fn count(&mut self, slice: u64, keys: i64) {
        if self.counted.0 == slice {
            self.counted.1 += keys;
        } else {
            self.count_other(slice, keys);
        }
    }

    #[cold]
    #[inline(never)]
    fn count_other(&mut self, slice: u64, keys: i64) {
        let at = self.counted_before.iter().position(|(counted, _)| *counted == slice);
        let before = at.map_or((slice, 0), |at| self.counted_before.swap_remove(at));
        self.counted_before.push(std::mem::replace(&mut self.counted, before));
        self.counted.1 += keys;
    }

    /// Live keys recorded since the store was opened.
    pub(crate) fn keys_recorded(&self) -> i64 {
        self.counted.1 + self.counted_before.iter().map(|(_, keys)| keys).sum::<i64>()
    }

    /// Gets a chunk and puts it to use; begins a new set of unsealed records when the chunk is of
    /// another segment.
    #[cold]
    pub(crate) fn add_chunk(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        put_to_use: impl FnOnce(&mut Active, u32),
    ) -> Result<()> {
        let mut taker = Taker {
            journal: &tools.journal,
            reservation: &mut call.reservation,
            began_segment: false,
        };
        let (segment, chunk) = taker.take()?;
        call.began_segment |= taker.began_segment;
        put_to_use(self.turn_to(tools, segment), chunk);
        Ok(())
    }

    /// The set of unsealed records of `segment`, which is the one in use.
    fn turn_to(&mut self, tools: &Tools, segment: Arc<Segment>) -> &mut Active {
        if self.active.as_ref().is_some_and(|active| active.segment.id != segment.id) {
            self.freeze();
        }
        self.active.get_or_insert_with(|| Active::new(segment, tools.index()))
    }

    /// Ends the set of unsealed records; the next append begins another one.
    pub(crate) fn freeze(&mut self) {
        if let Some(active) = self.active.take() {
            self.frozen.push(Arc::new(active));
        }
    }

    /// Puts back a digest read from a journal.
    pub(crate) fn restore(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        target: Target,
    ) -> Result<()> {
        // What was forgotten and seen again, or restored before a crash, is there twice.
        if self.active.as_ref().is_some_and(|active| active.holds(digest, target.slice)) {
            return Ok(());
        }
        let other = if tools.holds_refreshed { self.newest_restored(digest) } else { None };
        if other == Some(target.slice) {
            return Ok(());
        }
        self.journal_digest(tools, call, digest, target)?;
        if call.epoch > 0 && tools.log.has_marks() {
            call.logged.push((target.slice, digest));
        }
        self.publish(digest, target, None);
        self.count(target.slice, 1);
        match other {
            Some(other) => self.count_refreshed(other.min(target.slice)),
            None => tools.quota.found_unsealed(),
        }
        Ok(())
    }
}
