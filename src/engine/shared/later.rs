//! Observations and claims for futures, which may be gone when the answer comes.

use std::cell::Cell;
use std::sync::Arc;

use super::Shared;
use super::decide::{Deciding, Said, Wanted};
use super::drive::{Looked, Next, Round, Turn};
use crate::authority::{RowAnswer, RowOp};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::engine::later::ticket::{Made, Ticket};
use crate::error::{Error, Result};
use crate::gather::Failure;
use crate::shard::{Call, Shard};

impl Engine {
    /// Decides digests that are all different; `tickets` has one each, if futures asked for them.
    pub(super) fn decide_by<'a>(
        &'a self,
        shared: &'a Shared,
        digests: &[Digest],
        wanted: Wanted<'a>,
        policy: OnOutage,
        tickets: &'a [Arc<Ticket>],
    ) -> Vec<Option<Result<Said>>> {
        let fresh = Cell::new(shared.link.is_fresh());
        let deciding = Deciding { engine: self, shared, wanted, policy, fresh, tickets };
        self.drive(
            shared,
            digests,
            (&deciding.fresh, policy),
            |shard, call, at, digest| deciding.look(shard, call, at, digest),
            |round, turn, answer| deciding.answered(round, turn, answer),
        )
    }

    /// Observes or claims for futures.
    pub(in crate::engine) fn decide_for(
        &self,
        digests: &[Digest],
        claims: bool,
        policy: OnOutage,
        tickets: &[Arc<Ticket>],
    ) -> Vec<Option<Result<Said>>> {
        self.tick_clock();
        let Some(shared) = self.shared() else {
            return digests.iter().map(|_| Some(Err(Error::Closed))).collect();
        };
        let claimed = Wanted::Claim(self.config.lease_ns, &|_| &[], None);
        let wanted = if claims { claimed } else { Wanted::Observe(None) };
        self.decide_by(shared, digests, wanted, policy, tickets)
    }

    /// What is known here of digests; `None` where the authority has to be asked.
    pub(in crate::engine) fn decided_here(
        &self,
        digests: &[Digest],
        claims: bool,
        policy: OnOutage,
    ) -> Vec<Option<Result<Said>>> {
        self.tick_clock();
        let Some(shared) = self.shared() else {
            return digests.iter().map(|_| Some(Err(Error::Closed))).collect();
        };
        let claimed = Wanted::Claim(self.config.lease_ns, &|_| &[], None);
        let wanted = if claims { claimed } else { Wanted::Observe(None) };
        let (fresh, tickets) = (Cell::new(shared.link.is_fresh()), &[]);
        let deciding = Deciding { engine: self, shared, wanted, policy, fresh, tickets };
        let mut call = Call::default();
        let said = digests.iter().enumerate().map(|(at, digest)| {
            let mut shard = match self.enter(self.shard_of(*digest)) {
                Ok(shard) => shard,
                Err(error) => return Some(Err(error)),
            };
            if !deciding.is_said_here(&shard, *digest) {
                return None;
            }
            match deciding.look(&mut shard, &mut call, at, *digest) {
                Looked::Said(said) => Some(said),
                _ => None,
            }
        });
        let said: Vec<_> = said.collect();
        match self.finish(call) {
            Ok(()) => said,
            Err(error) => said.into_iter().map(|said| said.map(|_| Err(error.again()))).collect(),
        }
    }
}

impl Deciding<'_> {
    /// Whether [`Deciding::look`] has the answer.
    fn is_said_here(&self, shard: &Shard, digest: Digest) -> bool {
        if shard.surely_held_for(digest, || self.engine.time.now()).is_some() {
            return true;
        }
        let Ok(Some(seen)) = shard.find(digest, shard.suspects(digest)) else { return false };
        let refreshes = self.engine.tools.refresh_on_duplicate && seen < shard.current().slice;
        self.fresh.get() && !refreshes
    }

    pub(super) fn answered(
        &self,
        round: &mut Round,
        turn: &mut Turn,
        answer: Result<RowAnswer, Failure>,
    ) -> Next<Said> {
        let Some(ticket) = self.tickets.get(turn.at) else {
            return self.told(round, turn, answer);
        };
        let mut entry = ticket.enter();
        if entry.gone {
            return Next::Done(Err(self.give_up(round, turn)));
        }
        let next = self.told(round, turn, answer);
        if let Next::Done(Ok(Said::New(grant))) = &next {
            let (digest, token, sent_ns) = (turn.digest, turn.token, turn.sent_ns);
            let claim = grant.as_ref().map(|grant| grant.token);
            entry.made.push(Made { digest, token, sent_ns, claim });
        }
        next
    }

    /// Nobody waits for the turn any more. It ends as one without a reply, and what it may have made is
    /// taken back by its token: by the next call for the key, and for others as soon as that goes.
    fn give_up(&self, round: &mut Round, turn: &Turn) -> Error {
        let failure = Failure::nobody_waits();
        let unsure = turn.unsure(self.observes(), round.asked_ns, &failure);
        self.end(round, turn, unsure, |_| {});
        if turn.won || matches!(turn.op, RowOp::Observe { .. } | RowOp::Claim { .. }) {
            self.engine.withdraw_there(self.shared, turn.digest, turn.token);
        }
        self.shared.error(&failure, true)
    }
}
