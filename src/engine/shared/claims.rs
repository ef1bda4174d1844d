//! Claims that the authority knows of: granted, renewed, committed and given back there and here.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::decide::{Said, Wanted, first_occurrences};
use super::drive::{Looked, Next, Round, Turn};
use super::{Shared, lease, span, unfit};
use crate::authority::{RowAnswer, RowOp};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::engine::claims::{Attempt, Grant, Wish};
use crate::error::{Error, Result};
use crate::format::kept::Kept;
use crate::gather::{Failure, Step};
use crate::shard::asked::Unsure;
use crate::shard::control::Remote;
use crate::shard::{Call, Shard};

/// The lease of a claim that is about to be given back.
const TAKEN_BACK: Duration = Duration::from_millis(1);

/// A claim as its guard names it, and what is done for it while the authority cannot be asked.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) digest: Digest,
    pub(crate) token: u64,
    pub(crate) on_outage: OnOutage,
}

pub(in crate::engine) fn attempt(said: Said) -> Attempt {
    match said {
        Said::New(Some(grant)) => Attempt::Granted(grant),
        Said::InFlight(lease_left) => Attempt::InFlight { lease_left },
        Said::Duplicate(kept) => Attempt::Duplicate(kept),
        Said::New(None) => Attempt::Duplicate(None),
    }
}

impl Engine {
    pub(in crate::engine) fn claim_shared(
        &self,
        shared: &Shared,
        digest: Digest,
        wish: Wish<'_>,
        policy: OnOutage,
    ) -> Result<Attempt> {
        self.tick_clock();
        let lease_ns = wish.lease_ns.unwrap_or(self.config.lease_ns);
        let wanted = Wanted::Claim(lease_ns, &|_| wish.note, wish.fingerprint);
        let said = self.decide(shared, &[digest], wanted, policy).pop().flatten();
        Ok(match attempt(said.unwrap_or(Err(Error::Closed))?) {
            Attempt::Duplicate(kept) if self.conflicts(kept.as_deref(), wish.fingerprint) => {
                Attempt::Conflict
            }
            other => other,
        })
    }

    pub(in crate::engine) fn claim_batch_shared(
        &self,
        shared: &Shared,
        digests: &[Digest],
        lease_ns: i64,
        policy: OnOutage,
        mut answer: impl FnMut(usize, Attempt),
    ) -> Result<()> {
        self.tick_clock();
        let (firsts, first_of) = first_occurrences(digests);
        let mut said =
            self.decide(shared, &firsts, Wanted::Claim(lease_ns, &|_| &[], None), policy);
        let mut repeated: Vec<Option<Attempt>> = said.iter().map(|_| None).collect();
        let mut claimed = Ok(());
        for (at, first) in first_of.into_iter().enumerate() {
            let given = match said[first].take() {
                Some(Ok(said)) => attempt(said),
                Some(Err(error)) => {
                    claimed = claimed.and(Err(error));
                    continue;
                }
                None => match repeated[first].take() {
                    Some(given) => given,
                    None => continue,
                },
            };
            repeated[first] = Some(match &given {
                Attempt::Granted(_) => Attempt::InFlight { lease_left: span(lease_ns) },
                Attempt::InFlight { lease_left } => Attempt::InFlight { lease_left: *lease_left },
                Attempt::Duplicate(kept) => Attempt::Duplicate(kept.clone()),
                Attempt::TooOld | Attempt::Conflict => Attempt::Duplicate(None),
            });
            answer(at, given);
        }
        claimed
    }

    /// Claims whose lease has run out here are asked for: those that nobody has taken over are.
    pub(in crate::engine) fn take_over_shared(
        &self,
        shared: &Shared,
        mut answer: impl FnMut(Grant),
    ) -> Result<()> {
        let now_ns = self.time.now();
        let mut expired = Vec::new();
        for index in 0..self.shards.len() {
            let shard = self.enter(index)?;
            let claims = shard.claims.iter().filter(|(_, claim)| claim.is_expired(now_ns));
            expired.extend(claims.map(|(digest, claim)| (*digest, claim.note.clone())));
        }
        let digests: Vec<Digest> = expired.iter().map(|(digest, _)| *digest).collect();
        let note_of = |at: usize| &*expired[at].1;
        let wanted = Wanted::Claim(self.config.lease_ns, &note_of, None);
        let mut taken_over = Ok(());
        for said in self.decide(shared, &digests, wanted, OnOutage::Fail).into_iter().flatten() {
            match said {
                Ok(Said::New(Some(grant))) => answer(grant),
                Ok(_) => {}
                Err(error) => taken_over = taken_over.and(Err(error)),
            }
        }
        taken_over
    }

    /// Has the authority told that a claim is not ours any more, without waiting for it.
    pub(super) fn give_back(&self, shared: &Shared, digest: Digest, token: u64) {
        let op = RowOp::Abandon { token: shared.token(token) };
        shared.link.post(vec![Step::new(digest.into(), op)]);
    }

    pub(in crate::engine) fn abandon_shared(&self, shared: &Shared, digest: Digest, token: u64) {
        let shard = self.shards[self.shard_of(digest)].lock();
        let claim = shard.claims.get(&digest).filter(|claim| claim.token == token);
        let remote = claim.map(|claim| claim.remote).filter(|remote| remote.commit_ns != 0);
        drop(shard);
        if let Some(remote) = remote {
            self.take_back_commit(shared, digest, token, remote);
        }
        self.give_back(shared, digest, token);
    }

    pub(in crate::engine) fn renew_shared(&self, shared: &Shared, held: Held) -> Result<()> {
        self.tick_clock();
        let Held { digest, token, on_outage } = held;
        let renewed = self.drive(
            shared,
            &[digest],
            (&Cell::new(true), on_outage),
            |shard, call, at, digest| {
                let Some(claim) = shard.claims.get(&digest).filter(|c| c.token == token) else {
                    return Looked::Said(Err(Error::LeaseLost { token }));
                };
                if claim.remote.fence == 0 {
                    let now_ns = self.time.now();
                    return Looked::Said(shard.renew(&self.tools, call, digest, token, now_ns));
                }
                let (token, lease) = (shared.token(token), lease(claim.lease_ns));
                let op = RowOp::Renew { token, lease, keep: shared.keep };
                self.turn(shard, at, digest, op)
            },
            |round, turn, answer| self.renewed(shared, held, round, turn, answer),
        );
        renewed.into_iter().flatten().next().unwrap_or(Err(Error::Closed))
    }

    /// Takes the turn for a step of a claim.
    pub(super) fn turn<T>(
        &self,
        shard: &mut Shard,
        at: usize,
        digest: Digest,
        op: RowOp<'static>,
    ) -> Looked<T> {
        let Some(earlier) = shard.take_turn(digest) else { return Looked::Busy };
        let mut turn = Turn::new(at, digest, op, self.time.now());
        turn.earlier = earlier;
        Looked::Ask(turn)
    }

    fn renewed(
        &self,
        shared: &Shared,
        held: Held,
        round: &mut Round,
        turn: &Turn,
        answer: Result<RowAnswer, Failure>,
    ) -> Next<()> {
        let Held { digest, token, on_outage } = held;
        let lost = matches!(answer, Ok(RowAnswer::Lost));
        let may = match answer {
            Ok(RowAnswer::Renewed) => Ok(()),
            Ok(RowAnswer::Lost) => Err(Error::LeaseLost { token }),
            Err(failure) if on_outage == OnOutage::Fail => {
                Err(shared.error(&failure, failure.undecided))
            }
            Err(_) => self.note_assumed(shared),
            Ok(_) => Err(shared.error(&unfit(), false)),
        };
        let renewed = self.enter(self.shard_of(digest)).and_then(|mut shard| {
            shard.end_turn(&self.tools, &mut round.call, digest, turn.earlier);
            if lost {
                shard.drop_claim(&self.tools, digest);
            }
            may?;
            shard.renew(&self.tools, &mut round.call, digest, token, round.asked_ns)
        });
        Next::Done(renewed)
    }

    /// Commits many claims, in one round trip; an answer each.
    pub(in crate::engine) fn commit_shared(
        &self,
        shared: &Shared,
        claims: &[Held],
    ) -> Vec<Result<()>> {
        self.tick_clock();
        let digests: Vec<Digest> = claims.iter().map(|held| held.digest).collect();
        let committed = self.drive(
            shared,
            &digests,
            (&Cell::new(true), OnOutage::Fail),
            |shard, _: &mut Call, at, digest| {
                self.begin_commit(shared, shard, at, digest, claims[at].token)
            },
            |round, turn, answer| {
                let done = self.committed(shared, claims[turn.at], round, turn, answer);
                done.unwrap_or(Next::Again)
            },
        );
        committed.into_iter().map(|done| done.unwrap_or(Err(Error::Closed))).collect()
    }

    /// [`Engine::commit_shared`] for futures.
    pub(in crate::engine) fn commit_for(&self, claims: &[Held]) -> Vec<Result<()>> {
        match self.shared() {
            Some(shared) => self.commit_shared(shared, claims),
            None => claims.iter().map(|_| Err(Error::Closed)).collect(),
        }
    }

    fn begin_commit(
        &self,
        shared: &Shared,
        shard: &mut Shard,
        at: usize,
        digest: Digest,
        token: u64,
    ) -> Looked<()> {
        let now_ns = self.time.now();
        let Some(claim) = shard.claims.get_mut(&digest).filter(|claim| claim.token == token) else {
            return Looked::Said(Err(Error::LeaseLost { token }));
        };
        if claim.remote.commit_ns == 0 {
            claim.remote.commit_ns = now_ns;
        }
        let kept = claim.kept.as_deref().map(|kept| kept.encode(digest).into());
        let (token, keep, value) = (shared.token(token), shared.keep, &[]);
        let mut looked = self.turn(shard, at, digest, RowOp::Commit { token, keep, value });
        if let Looked::Ask(turn) = &mut looked {
            turn.value = kept;
        }
        looked
    }

    /// `None`: the turn has another step to ask for.
    fn committed(
        &self,
        shared: &Shared,
        held: Held,
        round: &mut Round,
        turn: &mut Turn,
        answer: Result<RowAnswer, Failure>,
    ) -> Option<Next<()>> {
        let lost = Error::LeaseLost { token: held.token };
        let remote = self.remote(held);
        let marked = match answer {
            Ok(RowAnswer::Lost)
                if matches!(turn.op, RowOp::Commit { .. })
                    && remote.is_some_and(|remote| remote.fence == 0) =>
            {
                // It was granted without the authority, which has not heard of it, or not for sure. It
                // is told now.
                let (token, keep, value) = (shared.token(held.token), shared.keep, &[]);
                turn.op = RowOp::Observe { token, keep, value };
                return None;
            }
            Ok(RowAnswer::Committed | RowAnswer::Marked) => {
                let begun_ns = remote.map_or(turn.sent_ns, |remote| remote.commit_ns);
                if self.time.now().saturating_sub(begun_ns) > shared.slack_ns {
                    // It was marked long ago, if the reply was lost: it lives on from now.
                    turn.op = RowOp::Refresh { keep: shared.keep };
                    return None;
                }
                Ok(())
            }
            Ok(RowAnswer::Duplicate { value, .. }) => {
                // Another has marked it, and what is kept is his.
                turn.value = self.accepted_if_sound(turn.digest, value);
                Ok(())
            }
            Ok(RowAnswer::Refreshed) => Ok(()),
            // Absent: forgotten since it was committed.
            Ok(RowAnswer::Absent | RowAnswer::Lost | RowAnswer::InFlight { .. }) => Err(lost),
            Ok(_) => Err(shared.error(&unfit(), true)),
            Err(failure) if held.on_outage == OnOutage::Fail => {
                // It is marked where only that it lives on was asked for.
                let is_marked = matches!(turn.op, RowOp::Refresh { .. });
                Err(shared.error(&failure, failure.undecided || is_marked))
            }
            Err(_) => {
                round.relies.push(turn.at);
                let noted = self.note_assumed(shared);
                let begun = round.begun.as_ref().copied().map_err(Error::again);
                noted.and(begun)
            }
        };
        let must_keep = round.relies.contains(&turn.at);
        Some(Next::Done(self.end_commit(shared, held.token, round, turn, (marked, must_keep))))
    }

    /// What the authority has to do with a claim, while it is ours.
    pub(super) fn remote(&self, held: Held) -> Option<Remote> {
        let shard = self.enter(self.shard_of(held.digest)).ok()?;
        let claim = shard.claims.get(&held.digest)?;
        (claim.token == held.token).then_some(claim.remote)
    }

    /// Ends the claim here, as the authority did. What cannot be kept here it keeps.
    pub(super) fn end_commit(
        &self,
        shared: &Shared,
        token: u64,
        round: &mut Round,
        turn: &Turn,
        (marked, must_keep): (Result<()>, bool),
    ) -> Result<()> {
        let Turn { digest, earlier, .. } = *turn;
        // What was not known before is known when the key is done there: the mark stands, whoever made
        // it.
        let settles = marked.is_ok() && !must_keep;
        let settled = if settles { self.settle_question(round, turn) } else { Ok(()) };
        let mut shard = match self.enter(self.shard_of(digest)) {
            Ok(shard) => shard,
            Err(error) if must_keep => return Err(error),
            // Closed meanwhile; it is committed all the same.
            Err(_) => return marked,
        };
        let forgotten = shard.was_forgotten(digest);
        let unsure = if settles && settled.is_ok() { None } else { earlier };
        shard.end_turn(&self.tools, &mut round.call, digest, unsure);
        settled?;
        marked.inspect_err(|error| {
            if let Error::LeaseLost { .. } = error {
                shard.drop_claim(&self.tools, digest);
            }
        })?;
        let target = (!forgotten).then(|| shard.current());
        if let Ok(claim) = shard.owned(digest, token) {
            let value = turn.value.as_ref().and_then(|value| Kept::decode(digest, value).ok());
            claim.kept = value.map(Box::new);
        }
        let kept = shard.commit(&self.tools, &mut round.call, digest, token, target);
        if kept.is_err() && !must_keep {
            shard.drop_claim(&self.tools, digest);
            shared.not_kept.fetch_add(1, Relaxed);
            return Ok(());
        }
        kept
    }

    /// Gives a claim back whose commit may have been applied: others may know the key as done, and have
    /// to hear that it is not. While that is not certain the next call for the key goes on with it.
    fn take_back_commit(&self, shared: &Shared, digest: Digest, number: u64, remote: Remote) {
        let (token, keep, value) = (shared.token(number), shared.keep, &[]);
        let _ = self.drive(
            shared,
            &[digest],
            (&Cell::new(true), OnOutage::Fail),
            |shard, _, at, digest| {
                // A claim that is renewed was never committed.
                self.turn(shard, at, digest, RowOp::Renew { token, lease: TAKEN_BACK, keep })
            },
            |round, turn, answer| {
                let knew = remote.fence > 0;
                turn.op = match (turn.op, answer) {
                    (RowOp::Renew { .. }, Ok(RowAnswer::Renewed)) => RowOp::Abandon { token },
                    (RowOp::Renew { .. }, Ok(RowAnswer::Lost)) => {
                        RowOp::Commit { token, keep, value }
                    }
                    // Such a claim is committed by an observation.
                    (RowOp::Commit { .. }, Ok(RowAnswer::Lost)) if !knew => {
                        RowOp::Observe { token, keep, value }
                    }
                    (RowOp::Commit { .. }, Ok(RowAnswer::Committed))
                    | (RowOp::Observe { .. }, Ok(RowAnswer::Marked)) => {
                        RowOp::Forget { keep: shared.forget_keep }
                    }
                    (_, answer) => {
                        let (sent_ns, last_ns) = (remote.commit_ns, round.asked_ns);
                        let doubt = Unsure { observed: true, token, sent_ns, last_ns };
                        let settled = matches!(
                            (turn.op, &answer),
                            (RowOp::Commit { .. }, Ok(RowAnswer::Lost))
                                | (RowOp::Observe { .. }, Ok(RowAnswer::Duplicate { .. }))
                                | (RowOp::Observe { .. }, Ok(RowAnswer::InFlight { .. }))
                                | (RowOp::Abandon { .. }, Ok(RowAnswer::Abandoned))
                                | (RowOp::Forget { .. }, Ok(RowAnswer::Forgotten { .. }))
                        );
                        let unsure = if settled { turn.earlier } else { Some(doubt) };
                        if let Ok(mut shard) = self.enter(self.shard_of(digest)) {
                            shard.end_turn(&self.tools, &mut round.call, digest, unsure);
                        }
                        return Next::Done(Ok(()));
                    }
                };
                Next::Again
            },
        );
    }
}
