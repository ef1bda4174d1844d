//! Batches: their space is set aside before the first mark, then they are decided group by group.
//!
//! What the filter cannot answer is fetched in two steps (where the pages of sealed parts begin, then
//! the page) and decided afterwards.

use super::Engine;
use super::group::{GROUP, Group, Keys};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::shard::{Call, Shard, Target};
use crate::verdict::{BatchError, Verdict};

/// A batch whose space is set aside.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) call: Call,
    /// Keys that the quota made room for.
    quota_keys: usize,
}

/// Keys of a group that the filter suspects.
struct Suspects {
    keys: Keys,
    /// Those whose pages are not on their way yet.
    waiting: Keys,
    /// The columns that each is suspected in.
    columns: [u64; GROUP],
}

impl Engine {
    /// Sets aside the space of a batch, and looks for keys that are claimed.
    pub(super) fn prepare_batch(&self, digests: &[Digest]) -> Result<Prepared> {
        self.refuse_claimed(digests)?;
        self.set_aside(digests)
    }

    fn set_aside(&self, digests: &[Digest]) -> Result<Prepared> {
        let quota_keys = self.take_quota(digests)?;
        // Each shard may need a chunk, one more if it is sealed meanwhile, and all together what the
        // keys fill.
        let shards = self.shards.len().min(digests.len());
        let chunks = 2 * shards + digests.len() / 255 + 1;
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        match self.tools.journal.reserve(chunks) {
            Ok(reservation) => {
                let quota_taken = self.tools.quota.is_limited();
                let mut batch = Prepared { call: Call::default(), quota_keys };
                match self.begin() {
                    Ok(call) => batch.call = Call { reservation, quota_taken, ..call },
                    Err(error) => {
                        batch.call.reservation = reservation;
                        self.finish_batch(batch, 0)?;
                        return Err(error);
                    }
                }
                Ok(batch)
            }
            Err(error) => {
                self.tools.quota.give_back(quota_keys as i64);
                Err(error)
            }
        }
    }

    /// Makes room in the quota: for all keys if there is room for all, else for those that are new.
    fn take_quota(&self, digests: &[Digest]) -> Result<usize> {
        let quota = &self.tools.quota;
        if !quota.is_limited() || quota.take(digests.len()).is_ok() {
            return Ok(digests.len());
        }
        self.count_out_expired();
        let mut new = std::collections::HashSet::new();
        for digest in digests {
            if !self.is_live(*digest)? {
                new.insert(*digest);
            }
        }
        quota.take(new.len()).map(|()| new.len())
    }

    fn refuse_claimed(&self, digests: &[Digest]) -> Result<()> {
        if !self.tools.claims_held.may_be_any() {
            return Ok(());
        }
        for digest in digests {
            let index = self.shard_of(*digest);
            if self.tools.claims_held.of(index) == 0 {
                continue;
            }
            let mut shard = self.enter(index)?;
            if let Some(lease_left) = shard.held_for(*digest, || self.time.now()) {
                shard.counters.in_flight += 1;
                return Err(Error::InFlight { lease_left });
            }
        }
        Ok(())
    }

    /// Ends a batch, when all it marked is on the disk if the level asks for that.
    pub(super) fn finish_batch(&self, batch: Prepared, new: usize) -> Result<()> {
        if self.tools.quota.is_limited() {
            self.tools.quota.give_back(batch.quota_keys as i64 - new as i64);
        }
        self.finish(batch.call)
    }

    pub(crate) fn observe_batch(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
        verdicts: &mut Vec<Verdict>,
        on_outage: OnOutage,
    ) -> Result<(), BatchError> {
        verdicts.clear();
        if !self.is_alone() {
            return self.observe_batch_otherwise(digests.collect(), verdicts, on_outage);
        }
        self.observe_batch_alone(digests, verdicts)
    }

    #[cold]
    #[inline(never)]
    fn observe_batch_otherwise(
        &self,
        digests: Vec<Digest>,
        verdicts: &mut Vec<Verdict>,
        on_outage: OnOutage,
    ) -> Result<(), BatchError> {
        let none = |error| BatchError::new(vec![None; digests.len()], error);
        match self.admit(&digests, on_outage).map_err(none)? {
            Some(shared) => self.observe_batch_shared(shared, &digests, on_outage, verdicts),
            None if self.config.event_time => Err(none(self.refusal(false, "observe_batch"))),
            None => self.observe_batch_alone(digests.into_iter(), verdicts),
        }
    }

    #[inline]
    fn observe_batch_alone(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), BatchError> {
        let len = digests.len();
        let none = |error| BatchError::new(vec![None; len], error);
        if len == 0 {
            return Ok(());
        }
        // Only a quota or claims in flight have to see all keys before the first is marked.
        if self.tools.quota.is_limited() || self.tools.claims_held.may_be_any() {
            let digests: Vec<Digest> = digests.collect();
            let batch = self.prepare_batch(&digests).map_err(none)?;
            return self.decide_batch(batch, digests.into_iter(), len, verdicts);
        }
        let batch = self.set_aside_for(len).map_err(none)?;
        self.decide_batch(batch, digests, len, verdicts)
    }

    fn set_aside_for(&self, len: usize) -> Result<Prepared> {
        let chunks = 2 * self.shards.len().min(len) + len / 255 + 1;
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        let reservation = self.tools.journal.reserve(chunks)?;
        match self.begin() {
            Ok(mut call) => {
                if call.epoch > 0 {
                    call.logged.reserve(len);
                }
                Ok(Prepared { call: Call { reservation, ..call }, quota_keys: 0 })
            }
            Err(error) => {
                self.tools.journal.release(reservation);
                Err(error)
            }
        }
    }

    fn decide_batch(
        &self,
        mut batch: Prepared,
        mut digests: impl Iterator<Item = Digest>,
        len: usize,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), BatchError> {
        // Most keys are new: that is written once, and only what differs afterwards.
        verdicts.resize(len, Verdict::New);
        let mut decided = Decided { verdicts, other: 0, failed: Vec::new(), error: None };
        self.for_each_group(&mut digests, |group| {
            self.decide_group(&mut batch.call, group, &mut decided);
            true
        });
        let Decided { failed, error, other, .. } = decided;
        if let Err(error) = self.finish_batch(batch, len - other - failed.len()) {
            verdicts.clear();
            return Err(BatchError::new(vec![None; len], error));
        }
        match error {
            None => Ok(()),
            Some(error) => {
                let mut parts: Vec<_> = verdicts.drain(..).map(Some).collect();
                failed.into_iter().for_each(|at| parts[at] = None);
                Err(BatchError::new(parts, error))
            }
        }
    }

    #[inline]
    fn decide_group(&self, call: &mut Call, group: &Group, decided: &mut Decided<'_>) {
        let mut suspects = Suspects { keys: Keys(0), waiting: Keys(0), columns: [0; GROUP] };
        let later = self.for_each_shard(group, group.keys(), true, |shard, keys| {
            self.glance(call, shard, group, keys, &mut suspects, decided);
        });
        if later.0 != 0 {
            self.for_each_shard(group, later, false, |shard, keys| {
                self.glance(call, shard, group, keys, &mut suspects, decided);
            });
        }
        if suspects.keys.0 != 0 {
            self.decide_suspects(call, group, suspects.keys, decided);
        }
    }

    /// Marks the keys of one shard of which the filter alone can say that they are new.
    #[inline(always)]
    fn glance(
        &self,
        call: &mut Call,
        shard: Result<&mut Shard>,
        group: &Group,
        keys: Keys,
        suspects: &mut Suspects,
        decided: &mut Decided<'_>,
    ) {
        let shard = match shard {
            Ok(shard) => shard,
            Err(error) => return decided.fail_all(group.first, keys, error),
        };
        let target = shard.current();
        let earlier = std::mem::take(&mut suspects.waiting);
        let mut new = 0;
        for number in keys {
            let digest = group.digests[number];
            match shard.mark_if_new(&self.tools, call, digest, target) {
                Ok(None) => new += 1,
                Ok(Some(columns)) => {
                    shard.prefetch_fences(digest, columns);
                    suspects.columns[number] = columns;
                    suspects.keys.add(number);
                    suspects.waiting.add(number);
                }
                Err(error) => {
                    decided.fail_all(group.first, keys.from(number), error);
                    break;
                }
            }
        }
        shard.count_new(target, new);
        // What was found in the shard before has arrived by now.
        for number in earlier {
            shard.prefetch_pages(group.digests[number], suspects.columns[number]);
        }
    }

    #[inline(never)]
    fn decide_suspects(
        &self,
        call: &mut Call,
        group: &Group,
        suspects: Keys,
        decided: &mut Decided<'_>,
    ) {
        self.for_each_shard(group, suspects, false, |shard, keys| {
            let shard = match shard {
                Ok(shard) => shard,
                Err(error) => return decided.fail_all(group.first, keys, error),
            };
            let target: Target = shard.current();
            for number in keys {
                let digest = group.digests[number];
                match shard.observe(&self.tools, call, digest, target, || self.time.now()) {
                    Ok(Verdict::New) => {}
                    Ok(verdict) => decided.set(group.first + number, verdict),
                    Err(error) => decided.fail(group.first + number, error),
                }
            }
        });
    }

    pub(crate) fn contains_batch(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
        on_outage: OnOutage,
    ) -> Result<Vec<bool>> {
        if !self.is_alone() {
            return self.contains_batch_otherwise(&digests.collect::<Vec<_>>(), on_outage);
        }
        self.contains_batch_alone(digests)
    }

    #[cold]
    #[inline(never)]
    fn contains_batch_otherwise(
        &self,
        digests: &[Digest],
        on_outage: OnOutage,
    ) -> Result<Vec<bool>> {
        match self.admit(digests, on_outage)? {
            Some(shared) => self.contains_shared(shared, digests, on_outage),
            None => self.contains_batch_alone(digests.iter().copied()),
        }
    }

    #[inline]
    fn contains_batch_alone(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
    ) -> Result<Vec<bool>> {
        let mut found = vec![false; digests.len()];
        let mut call = Call::default();
        let looked = self.for_each_of_batch(digests, |shard, at, digest| {
            let mask = shard.suspects(digest);
            found[at] = shard.find(digest, mask)?.is_some();
            if found[at] {
                shard.wait_for(&self.tools.log, &mut call, digest);
            }
            Ok(())
        });
        looked.and(self.finish(call))?;
        Ok(found)
    }
}

/// Where the verdicts of a batch go.
struct Decided<'a> {
    verdicts: &'a mut Vec<Verdict>,
    /// How many are not `New`.
    other: usize,
    failed: Vec<usize>,
    error: Option<Error>,
}

impl Decided<'_> {
    #[inline]
    fn set(&mut self, at: usize, verdict: Verdict) {
        self.verdicts[at] = verdict;
        self.other += 1;
    }

    #[cold]
    fn fail(&mut self, at: usize, error: Error) {
        self.failed.push(at);
        self.error.get_or_insert(error);
    }

    #[cold]
    fn fail_all(&mut self, first: usize, keys: Keys, error: Error) {
        self.failed.extend(keys.map(|number| first + number));
        self.error.get_or_insert(error);
    }
}
