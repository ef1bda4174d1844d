//! Batches: the memory latency of one key is spent on the others.
//!
//! Keys are taken in groups. While one group is decided, the filter lines of the next are on their
//! way. A group is decided shard by shard, so that one lock serves several keys; what the filter
//! cannot answer is fetched in a first pass and decided in a second. A shard that another thread
//! holds is left for later.

use super::Engine;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::shard::{Call, Glance, Shard};
use crate::verdict::{BatchError, Verdict};

/// Keys of a group: enough to hide the latency, few enough that their lines stay in the first cache.
const GROUP: usize = 64;
/// Shards that are told apart by counting when a group is put in order; more are sorted.
const PLACES: usize = 64;

/// A batch whose space is set aside.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) call: Call,
    /// Keys that the quota made room for.
    quota_keys: usize,
}

/// Up to [`GROUP`] digests of a batch, with the order in which they are decided.
struct Group {
    digests: [Digest; GROUP],
    len: usize,
    /// Place in the batch of the first digest.
    first: usize,
}

impl Group {
    fn new() -> Self {
        Group { digests: [Digest { hi: 0, lo: 0 }; GROUP], len: 0, first: 0 }
    }

    /// Takes the next digests, and starts to fetch their lines of the filter.
    #[inline]
    fn fill(&mut self, engine: &Engine, digests: &mut impl Iterator<Item = Digest>) {
        self.first += self.len;
        self.len = 0;
        for digest in digests.take(GROUP) {
            engine.prefetch(digest);
            self.digests[self.len] = digest;
            self.len += 1;
        }
    }

    /// The digests' numbers, those of one shard together, each shard's in the order they came.
    #[inline]
    fn by_shard(&self, shard_bits: u32) -> [u8; GROUP] {
        let bits = shard_bits.min(PLACES.ilog2());
        if bits < shard_bits {
            let mut order: [u8; GROUP] = std::array::from_fn(|number| number as u8);
            let shard = |number: &u8| self.digests[usize::from(*number)].shard(shard_bits);
            order[..self.len].sort_by_key(shard);
            return order;
        }
        let mut starts = [0_u8; PLACES + 1];
        for digest in &self.digests[..self.len] {
            starts[digest.shard(bits) + 1] += 1;
        }
        for place in 1..=1 << bits {
            starts[place] += starts[place - 1];
        }
        let mut order = [0; GROUP];
        for (number, digest) in (0..).zip(&self.digests[..self.len]) {
            let at = &mut starts[digest.shard(bits)];
            order[usize::from(*at)] = number;
            *at += 1;
        }
        order
    }
}

/// Some keys of a group.
struct Numbers {
    numbers: [u8; GROUP],
    len: usize,
}

impl Numbers {
    fn new() -> Self {
        Numbers { numbers: [0; GROUP], len: 0 }
    }

    #[inline]
    fn push(&mut self, number: u8) {
        self.numbers[self.len] = number;
        self.len += 1;
    }

    fn extend(&mut self, numbers: &[u8]) {
        self.numbers[self.len..self.len + numbers.len()].copy_from_slice(numbers);
        self.len += numbers.len();
    }

    fn as_slice(&self) -> &[u8] {
        &self.numbers[..self.len]
    }
}

impl Engine {
    fn claims_held(&self) -> usize {
        self.tools.claims_held.load(std::sync::atomic::Ordering::Acquire)
    }

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
                let call = Call { reservation, quota_taken, ..Call::default() };
                Ok(Prepared { call, quota_keys })
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
            if !self.contains(*digest)? {
                new.insert(*digest);
            }
        }
        quota.take(new.len()).map(|()| new.len())
    }

    fn refuse_claimed(&self, digests: &[Digest]) -> Result<()> {
        if self.claims_held() == 0 {
            return Ok(());
        }
        for digest in digests {
            let mut shard = self.enter(self.shard_of(*digest))?;
            if let Some(lease_left) = shard.held_for(*digest, || self.time.now()) {
                shard.counters.in_flight += 1;
                return Err(Error::InFlight { lease_left });
            }
        }
        Ok(())
    }

    pub(super) fn finish_batch(&self, batch: Prepared, new: usize) {
        if self.tools.quota.is_limited() {
            self.tools.quota.give_back(batch.quota_keys as i64 - new as i64);
        }
        self.finish(batch.call);
    }

    pub(crate) fn observe_batch(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), BatchError> {
        verdicts.clear();
        let len = digests.len();
        let none = |error| BatchError::new(vec![None; len], error);
        self.require_event_time(false, "observe_batch").map_err(none)?;
        if len == 0 {
            return Ok(());
        }
        self.tick();
        // Only a quota or claims in flight have to see all keys before the first is marked.
        if self.tools.quota.is_limited() || self.claims_held() > 0 {
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
        let call = Call { reservation: self.tools.journal.reserve(chunks)?, ..Call::default() };
        Ok(Prepared { call, quota_keys: 0 })
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
        let mut decided = Decided { verdicts, failed: Vec::new(), error: None };
        let (mut group, mut next) = (Group::new(), Group::new());
        group.fill(self, &mut digests);
        while group.len > 0 {
            next.first = group.first + group.len;
            next.len = 0;
            next.fill(self, &mut digests);
            self.decide_group(&mut batch.call, &group, &mut decided);
            std::mem::swap(&mut group, &mut next);
        }
        let Decided { failed, error, .. } = decided;
        let new = verdicts.iter().filter(|v| **v == Verdict::New).count() - failed.len();
        self.finish_batch(batch, new);
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
        let order = group.by_shard(self.config.shard_bits);
        let mut suspects = Numbers::new();
        let mut later = Numbers::new();
        self.for_each_shard(group, &order[..group.len], Some(&mut later), |shard, numbers| {
            self.glance_at(call, shard, group, numbers, &mut suspects, decided);
        });
        if later.len > 0 {
            self.for_each_shard(group, later.as_slice(), None, |shard, numbers| {
                self.glance_at(call, shard, group, numbers, &mut suspects, decided);
            });
        }
        if suspects.len > 0 {
            self.decide_suspects(call, group, &suspects, decided);
        }
    }

    /// Calls `work` with each shard and the numbers of its keys, under the shard's lock. With
    /// `later`, the numbers of shards that are held by others are put there instead.
    #[inline]
    fn for_each_shard(
        &self,
        group: &Group,
        numbers: &[u8],
        mut later: Option<&mut Numbers>,
        mut work: impl FnMut(Result<&mut Shard>, &[u8]),
    ) {
        let bits = self.config.shard_bits;
        let mut at = 0;
        while at < numbers.len() {
            let index = group.digests[usize::from(numbers[at])].shard(bits);
            let same = |number: &u8| group.digests[usize::from(*number)].shard(bits) == index;
            let count = 1 + numbers[at + 1..].iter().take_while(|number| same(number)).count();
            let part = &numbers[at..at + count];
            at += count;
            let mut guard = match (self.shards[index].try_lock(), &mut later) {
                (Some(guard), _) => guard,
                (None, Some(later)) => {
                    later.extend(part);
                    continue;
                }
                (None, None) => self.shards[index].lock(),
            };
            match self.update(&mut guard) {
                Ok(()) => work(Ok(&mut guard), part),
                Err(error) => work(Err(error), part),
            }
        }
    }

    #[inline]
    fn glance_at(
        &self,
        call: &mut Call,
        shard: Result<&mut Shard>,
        group: &Group,
        numbers: &[u8],
        suspects: &mut Numbers,
        decided: &mut Decided<'_>,
    ) {
        let keys = Glance { digests: &group.digests, numbers };
        let (struck, error) = match shard {
            Ok(shard) => match shard.glance(&self.tools, call, &keys, |n| suspects.push(n)) {
                Ok(()) => return,
                Err(struck) => struck,
            },
            Err(error) => (numbers[0], error),
        };
        // The keys before are decided, those from here on are not.
        let undecided = numbers.iter().skip_while(|number| **number != struck);
        undecided.for_each(|number| decided.failed.push(group.first + usize::from(*number)));
        decided.error.get_or_insert(error);
    }

    fn decide_suspects(
        &self,
        call: &mut Call,
        group: &Group,
        suspects: &Numbers,
        decided: &mut Decided<'_>,
    ) {
        self.for_each_shard(group, suspects.as_slice(), None, |mut shard, numbers| {
            for number in numbers.iter().map(|number| usize::from(*number)) {
                let verdict = match &mut shard {
                    Ok(shard) => {
                        let (digest, target) = (group.digests[number], shard.current());
                        shard.observe(&self.tools, call, digest, target, || self.time.now())
                    }
                    Err(_) => Err(Error::Closed),
                };
                match verdict {
                    Ok(verdict) => decided.verdicts[group.first + number] = verdict,
                    Err(error) => decided.fail(group.first + number, error),
                }
            }
        });
    }

    pub(crate) fn contains_batch(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
    ) -> Result<Vec<bool>> {
        let mut found = vec![false; digests.len()];
        self.tick();
        self.for_each_of_batch(digests, |shard, at, digest| {
            let mask = shard.suspects(digest);
            found[at] = shard.find(digest, mask)?.is_some();
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `work` for each digest of a batch with its place in the batch, in groups, shard by
    /// shard. Ends at the first error.
    pub(super) fn for_each_of_batch(
        &self,
        mut digests: impl Iterator<Item = Digest>,
        mut work: impl FnMut(&mut Shard, usize, Digest) -> Result<()>,
    ) -> Result<()> {
        let mut error = None;
        let (mut group, mut next) = (Group::new(), Group::new());
        group.fill(self, &mut digests);
        while group.len > 0 && error.is_none() {
            next.first = group.first + group.len;
            next.len = 0;
            next.fill(self, &mut digests);
            let order = group.by_shard(self.config.shard_bits);
            self.for_each_shard(&group, &order[..group.len], None, |shard, numbers| {
                if error.is_some() {
                    return;
                }
                let done = shard.and_then(|shard| {
                    numbers.iter().map(|number| usize::from(*number)).try_for_each(|number| {
                        work(shard, group.first + number, group.digests[number])
                    })
                });
                error = done.err();
            });
            std::mem::swap(&mut group, &mut next);
        }
        error.map_or(Ok(()), Err)
    }
}

/// Where the verdicts of a batch go.
struct Decided<'a> {
    verdicts: &'a mut Vec<Verdict>,
    failed: Vec<usize>,
    error: Option<Error>,
}

impl Decided<'_> {
    #[cold]
    fn fail(&mut self, at: usize, error: Error) {
        self.failed.push(at);
        self.error.get_or_insert(error);
    }
}
