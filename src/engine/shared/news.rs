//! Forgetting, here and elsewhere, and looking without marking.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::drive::{Looked, Next, Turn};
use super::{Shared, unfit};
use crate::authority::{RowAnswer, RowOp};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::gather::{Failure, Step};
use crate::shard::Call;

/// Forgotten keys that a store remembers to have forgotten; of more, the oldest are not told again.
const MOST_FORGOTTEN: usize = 65_536;

impl Engine {
    /// The authority first: who reads of it there must not find the row. Then here, while no other
    /// call of this store can bring back what it was told before.
    pub(in crate::engine) fn forget_shared(&self, shared: &Shared, digest: Digest) -> Result<bool> {
        self.tick_clock();
        let keep = shared.forget_keep;
        let forgotten = self.drive(
            shared,
            &[digest],
            (&Cell::new(true), OnOutage::Fail),
            |shard, _, at, digest| {
                let Some(earlier) = shard.take_turn(digest) else { return Looked::Busy };
                let mut turn = Turn::new(at, digest, RowOp::Forget { keep }, self.time.now());
                turn.earlier = earlier;
                Looked::Ask(turn)
            },
            |round, turn, answer| {
                let failure = match answer {
                    Ok(RowAnswer::Forgotten { live }) => return Next::Done(Ok(live)),
                    Ok(_) => unfit(),
                    Err(failure) => failure,
                };
                if let Ok(mut shard) = self.enter(self.shard_of(digest)) {
                    shard.end_turn(&self.tools, &mut round.call, digest, turn.earlier);
                }
                Next::Done(Err(shared.error(&failure, false)))
            },
        );
        let live = forgotten.into_iter().flatten().next().unwrap_or(Err(Error::Closed))?;
        let mut ended = false;
        let forgotten = self.begin_logged().and_then(|call| {
            self.with_call(call, digest, |shard, call| {
                shard.end_turn(&self.tools, call, digest, None);
                ended = true;
                shard.forget(&self.tools, call, digest)
            })
        });
        if !ended && let Ok(mut shard) = self.enter(self.shard_of(digest)) {
            shard.end_turn(&self.tools, &mut Call::default(), digest, None);
        }
        self.claims.changed();
        self.remember_forgotten(shared, digest);
        Ok(forgotten? || live)
    }

    fn remember_forgotten(&self, shared: &Shared, digest: Digest) {
        let now_ns = self.time.now();
        let mut forgotten = shared.forgotten.lock();
        forgotten.push_back((now_ns, digest));
        let is_old = |(then_ns, _): &(i64, Digest)| {
            now_ns.saturating_sub(*then_ns) > crate::time::nanos(shared.forget_keep)
        };
        while forgotten.len() > MOST_FORGOTTEN || forgotten.front().is_some_and(is_old) {
            forgotten.pop_front();
        }
    }

    /// Tells a server once more what this store has forgotten: it may have lost the news before others
    /// heard of them, or have a row back. Not of keys that were seen again.
    pub(in crate::engine) fn forget_again(&self, shared: &Shared) {
        let forgotten: BTreeSet<Digest> =
            shared.forgotten.lock().iter().map(|(_, digest)| *digest).collect();
        let op = RowOp::Forget { keep: shared.forget_keep };
        let steps = forgotten.into_iter().filter(|digest| {
            let live = self.enter(self.shard_of(*digest)).and_then(|shard| {
                let mask = shard.suspects(*digest);
                Ok(shard.find(*digest, mask)?.is_some() || shard.claims.contains_key(digest))
            });
            matches!(live, Ok(false))
        });
        let steps: Vec<Step> = steps.map(|digest| Step::new(digest.into(), op)).collect();
        if !steps.is_empty() {
            shared.link.post(steps);
        }
    }

    /// Digests that the authority's log has: what is known of them here does not count any more. An
    /// error is of one of them; the others are forgotten all the same.
    pub(in crate::engine) fn forget_elsewhere(
        &self,
        digests: &[crate::authority::Digest],
    ) -> Result<()> {
        let digests: Vec<Digest> =
            digests.iter().filter_map(|digest| Digest::from_bytes(*digest.as_bytes())).collect();
        let mut call = Call::default();
        let mut failed = Ok(());
        let forgotten = self.for_each_of_batch(digests.into_iter(), |shard, _, digest| {
            if let Err(error) = shard.forget_elsewhere(&self.tools, &mut call, digest) {
                failed = Err(error);
            }
            Ok(())
        });
        let finished = self.finish(call);
        forgotten.and(failed).and(finished)
    }

    /// Whether keys are live. Nothing is marked, and nothing kept.
    pub(in crate::engine) fn contains_shared(
        &self,
        shared: &Shared,
        digests: &[Digest],
        policy: OnOutage,
    ) -> Result<Vec<bool>> {
        self.tick_clock();
        let (firsts, first_of) = super::decide::first_occurrences(digests);
        let fresh = Cell::new(shared.link.is_fresh());
        let found = self.drive(
            shared,
            &firsts,
            (&fresh, policy),
            |shard, call, at, digest| {
                let mask = shard.suspects(digest);
                // What cannot be read here the authority knows.
                if shard.find(digest, mask).unwrap_or_default().is_some() {
                    if !fresh.get() {
                        return Looked::Stale;
                    }
                    shard.wait_for(&self.tools.log, call, digest);
                    return Looked::Said(Ok(true));
                }
                if shard.is_unsure(digest) {
                    // It may be marked for a call that was never told.
                    let failure = Failure::never_answered();
                    return Looked::Said(Err(shared.error(&failure, true)));
                }
                Looked::Ask(Turn::new(at, digest, RowOp::Look, self.time.now()))
            },
            |_, _, answer| {
                Next::Done(match answer {
                    Ok(RowAnswer::Duplicate { .. }) => Ok(true),
                    Ok(RowAnswer::Absent | RowAnswer::InFlight { .. }) => Ok(false),
                    Ok(_) => Err(shared.error(&unfit(), false)),
                    Err(_) if policy == OnOutage::AssumeNew => Ok(false),
                    Err(failure) => Err(shared.error(&failure, false)),
                })
            },
        );
        let found = found.into_iter().map(|found| found.unwrap_or(Err(Error::Closed)));
        let found = found.collect::<Result<Vec<bool>>>()?;
        Ok(first_of.into_iter().map(|first| found[first]).collect())
    }
}
