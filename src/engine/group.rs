//! Groups of a batch: the memory latency of one key is spent on the others.
//!
//! While one group is worked on, the filter lines of the next are on their way. A group is taken shard
//! by shard, so that one lock serves several keys. A shard that another thread holds can be left for
//! later.

use super::Engine;
use crate::digest::Digest;
use crate::error::Result;
use crate::shard::Shard;

/// Keys of a group: enough to hide the latency, few enough that their lines stay in the first cache.
/// A set of them is the bits of a word.
pub(super) const GROUP: usize = 64;
/// Sets of keys that are told apart by their shard; with more shards, several share one.
const BUCKETS: usize = 64;

/// Up to [`GROUP`] digests of a batch, and which of them are in which shard.
pub(super) struct Group {
    pub(super) digests: [Digest; GROUP],
    len: usize,
    /// Place in the batch of the first digest.
    pub(super) first: usize,
    /// The digests of each bucket of shards, and the buckets that have some.
    members: [Keys; BUCKETS],
    occupied: Keys,
}

/// Some keys of a group, by number, in the order they came.
#[derive(Clone, Copy, Default)]
pub(super) struct Keys(pub(super) u64);

impl Keys {
    #[inline(always)]
    pub(super) fn add(&mut self, number: usize) {
        self.0 |= 1 << number;
    }

    /// Those from `number` on.
    pub(super) fn from(self, number: usize) -> Self {
        Keys(self.0 & (u64::MAX << number))
    }
}

impl Iterator for Keys {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let number = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(number)
    }
}

impl Group {
    fn new() -> Self {
        Group {
            digests: [Digest { hi: 0, lo: 0 }; GROUP],
            len: 0,
            first: 0,
            members: [Keys(0); BUCKETS],
            occupied: Keys(0),
        }
    }

    /// Takes the next digests, and starts to fetch their lines of the filter.
    #[inline]
    fn fill(&mut self, engine: &Engine, first: usize, digests: &mut impl Iterator<Item = Digest>) {
        for bucket in self.occupied {
            self.members[bucket] = Keys(0);
        }
        (self.first, self.len, self.occupied) = (first, 0, Keys(0));
        let bits = engine.config.shard_bits.min(BUCKETS.ilog2());
        for (number, digest) in digests.take(GROUP).enumerate() {
            engine.prefetch(digest);
            let bucket = digest.shard(bits) % BUCKETS;
            self.digests[number] = digest;
            self.members[bucket].add(number);
            self.occupied.add(bucket);
            self.len = number + 1;
        }
    }

    pub(super) fn keys(&self) -> Keys {
        Keys(if self.len == 0 { 0 } else { u64::MAX >> (GROUP - self.len) })
    }
}

/// Keys of one shard in a group, each with its place in the batch.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    group: &'a Group,
    keys: Keys,
}

const _: () = assert!(GROUP <= crate::format::record::MOST_CLAIMS);

impl Visit<'_> {
    /// The digest at a place of the batch that is in this visit.
    pub(super) fn digest(&self, at: usize) -> Digest {
        self.group.digests[at - self.group.first]
    }
}

impl Iterator for Visit<'_> {
    type Item = (usize, Digest);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let number = self.keys.next()?;
        Some((self.group.first + number, self.group.digests[number]))
    }
}

impl Engine {
    /// Calls `work` with each group of a batch, while the lines of the next are on their way; ends
    /// when it says so.
    #[inline]
    pub(super) fn for_each_group(
        &self,
        digests: &mut impl Iterator<Item = Digest>,
        mut work: impl FnMut(&Group) -> bool,
    ) {
        let mut group = Group::new();
        group.fill(self, 0, digests);
        if group.len < GROUP {
            work(&group);
            return;
        }
        let mut groups = [group, Group::new()];
        let mut first = 0;
        for turn in 0.. {
            let [even, odd] = &mut groups;
            let (group, next) = if turn % 2 == 0 { (even, odd) } else { (odd, even) };
            first += group.len;
            next.fill(self, first, digests);
            if !work(group) || next.len == 0 {
                return;
            }
        }
    }

    /// Calls `work` with each shard and those of `which` that are its keys, under the shard's lock.
    /// With `leave_held`, the keys of shards that others hold are returned instead.
    #[inline(always)]
    pub(super) fn for_each_shard(
        &self,
        group: &Group,
        which: Keys,
        leave_held: bool,
        mut work: impl FnMut(Result<&mut Shard>, Keys),
    ) -> Keys {
        let bits = self.config.shard_bits;
        let mut left = Keys(0);
        for bucket in group.occupied {
            let mut rest = Keys(group.members[bucket].0 & which.0);
            while let Some(first) = rest.clone().next() {
                let index = group.digests[first].shard(bits);
                let mut keys = rest;
                if 1 << bits > BUCKETS {
                    let same = |number: &usize| group.digests[*number].shard(bits) == index;
                    keys = Keys(rest.filter(same).fold(0, |set, number| set | 1 << number));
                }
                rest.0 &= !keys.0;
                let mut guard = match self.shards[index].try_lock() {
                    Some(guard) => guard,
                    None if leave_held => {
                        left.0 |= keys.0;
                        continue;
                    }
                    None => self.shards[index].lock(),
                };
                match self.update(&mut guard) {
                    Ok(()) => work(Ok(&mut guard), keys),
                    Err(error) => work(Err(error), keys),
                }
            }
        }
        left
    }

    /// Calls `work` for each digest of a batch with its place in the batch, in groups, shard by
    /// shard. Ends at the first error.
    pub(super) fn for_each_of_batch(
        &self,
        digests: impl Iterator<Item = Digest>,
        mut work: impl FnMut(&mut Shard, usize, Digest) -> Result<()>,
    ) -> Result<()> {
        self.for_each_visit(digests, |shard, mut keys| {
            keys.try_for_each(|(at, digest)| work(shard, at, digest))
        })
    }

    /// Calls `work` with each shard and what of a group of the batch is its own. Ends at the first
    /// error.
    pub(super) fn for_each_visit(
        &self,
        mut digests: impl Iterator<Item = Digest>,
        mut work: impl FnMut(&mut Shard, Visit<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut done = Ok(());
        self.for_each_group(&mut digests, |group| {
            self.for_each_shard(group, group.keys(), false, |shard, keys| {
                if done.is_ok() {
                    done = shard.and_then(|shard| work(shard, Visit { group, keys }));
                }
            });
            done.is_ok()
        });
        done
    }
}
