//! Observations and claims: whether a key is new, by one conditional write.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::drive::{Looked, Next, Round, Turn};
use super::{Shared, lease, unfit};
use crate::authority::{RowAnswer, RowOp, Token};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::engine::claims::Grant;
use crate::engine::later::ticket::Ticket;
use crate::error::{Error, Result};
use crate::format::kept::Kept;
use crate::gather::Failure;
use crate::shard::asked::Unsure;
use crate::shard::control::ClaimRequest;
use crate::shard::{Call, Shard, Target};
use crate::verdict::{BatchError, Verdict};

/// What is wanted of new keys.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// Of messages with this fingerprint, if any.
    Observe(Option<Digest>),
    /// With a lease, a note for each place, and a fingerprint.
    Claim(i64, &'a dyn Fn(usize) -> &'a [u8], Option<Digest>),
}

/// What a key is.
pub(in crate::engine) enum Said {
    New(Option<Grant>),
    /// With what is kept with the key, where a claim is answered.
    Duplicate(Option<Box<Kept>>),
    InFlight(Duration),
}

/// One call.
pub(super) struct Deciding<'a> {
    pub(super) engine: &'a Engine,
    pub(super) shared: &'a Shared,
    pub(super) wanted: Wanted<'a>,
    pub(super) policy: OnOutage,
    pub(super) fresh: Cell<bool>,
    /// Whether those who asked for each key wait still; none for a call that waits itself.
    pub(super) tickets: &'a [Arc<Ticket>],
}

impl Engine {
    pub(in crate::engine) fn observe_shared(
        &self,
        shared: &Shared,
        digest: Digest,
        policy: OnOutage,
    ) -> Result<Verdict> {
        self.tick_clock();
        match self.decide(shared, &[digest], Wanted::Observe(None), policy).pop().flatten() {
            Some(Ok(said)) => verdict(&said),
            Some(Err(error)) => Err(error),
            None => Err(Error::Closed),
        }
    }

    /// What is not known here goes in one round trip. Each key is decided by itself: an error leaves
    /// the others as they are.
    pub(in crate::engine) fn observe_batch_shared(
        &self,
        shared: &Shared,
        digests: &[Digest],
        policy: OnOutage,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), BatchError> {
        self.tick_clock();
        let (firsts, first_of) = first_occurrences(digests);
        let said = self.decide(shared, &firsts, Wanted::Observe(None), policy);
        assemble(self, said, &first_of, verdicts)
    }

    /// Decides digests that are all different.
    pub(super) fn decide<'a>(
        &'a self,
        shared: &'a Shared,
        digests: &[Digest],
        wanted: Wanted<'a>,
        policy: OnOutage,
    ) -> Vec<Option<Result<Said>>> {
        self.decide_by(shared, digests, wanted, policy, &[])
    }
}

/// The verdicts of a batch, of what was said of its digests without repetitions.
pub(in crate::engine) fn assemble(
    engine: &Engine,
    said: Vec<Option<Result<Said>>>,
    first_of: &[usize],
    verdicts: &mut Vec<Verdict>,
) -> Result<(), BatchError> {
    let mut failed = None;
    let decided: Vec<Option<Verdict>> = said
        .into_iter()
        .map(|said| {
            let said = said.unwrap_or(Err(Error::Closed)).and_then(|said| verdict(&said));
            said.map_err(|error| failed.get_or_insert(error)).ok()
        })
        .collect();
    let mut seen = vec![false; decided.len()];
    let mut repeated = 0;
    let parts: Vec<Option<Verdict>> = first_of
        .iter()
        .map(|first| {
            let again = std::mem::replace(&mut seen[*first], true);
            let decided = decided[*first]?;
            repeated += u64::from(again);
            Some(if again { Verdict::Duplicate } else { decided })
        })
        .collect();
    if repeated > 0 {
        // Anywhere: counters are added up.
        engine.shards[0].lock().counters.duplicate += repeated;
    }
    match failed {
        Some(error) => Err(BatchError::new(parts, error)),
        None => {
            verdicts.extend(parts.into_iter().flatten());
            Ok(())
        }
    }
}

/// The digests without repetitions, and for each one which of those it is.
pub(in crate::engine) fn first_occurrences(digests: &[Digest]) -> (Vec<Digest>, Vec<usize>) {
    let mut firsts = Vec::with_capacity(digests.len());
    let mut places = HashMap::with_capacity(digests.len());
    let first_of = digests.iter().map(|digest| {
        *places.entry(*digest).or_insert_with(|| {
            firsts.push(*digest);
            firsts.len() - 1
        })
    });
    let first_of = first_of.collect();
    (firsts, first_of)
}

pub(in crate::engine) fn verdict(said: &Said) -> Result<Verdict> {
    match said {
        Said::New(_) => Ok(Verdict::New),
        Said::Duplicate(_) => Ok(Verdict::Duplicate),
        Said::InFlight(lease_left) => Err(Error::InFlight { lease_left: *lease_left }),
    }
}

impl Deciding<'_> {
    pub(super) fn observes(&self) -> bool {
        matches!(self.wanted, Wanted::Observe(_))
    }

    pub(super) fn fingerprint(&self) -> Option<Digest> {
        match self.wanted {
            Wanted::Observe(fingerprint) | Wanted::Claim(_, _, fingerprint) => fingerprint,
        }
    }

    pub(super) fn look(
        &self,
        shard: &mut Shard,
        call: &mut Call,
        at: usize,
        digest: Digest,
    ) -> Looked<Said> {
        if let Some(lease_left) = shard.surely_held_for(digest, || self.engine.time.now()) {
            shard.counters.in_flight += u64::from(self.observes());
            return Looked::Said(Ok(Said::InFlight(lease_left)));
        }
        let mask = shard.suspects(digest);
        // What cannot be read here the authority knows.
        let found = shard.find_counted(digest, mask).unwrap_or_else(|error| {
            self.engine.note_background_error(&error);
            None
        });
        let target = shard.current();
        let mut known_here = false;
        if let Some(seen) = found {
            let refresh = self.engine.tools.refresh_on_duplicate && seen < target.slice;
            if !self.fresh.get() {
                return Looked::Stale;
            }
            if !refresh {
                let seen = shard.seen_again(&self.engine.tools, call, digest, seen, target);
                self.shared.answered_here.fetch_add(1, Relaxed);
                return Looked::Said(seen.and_then(|()| self.duplicate_of(shard, digest)));
            }
            known_here = true;
        }
        let Some(earlier) = shard.take_turn(digest) else { return Looked::Busy };
        let mut turn = Turn::new(at, digest, self.refresh(), self.engine.time.now());
        (turn.earlier, turn.known_here) = (earlier, known_here);
        if let Wanted::Observe(Some(fingerprint)) = self.wanted {
            turn.value = Some(Kept::of(fingerprint).encode(digest).into());
        }
        match earlier {
            _ if known_here => {}
            // First of all whether the mark is there, and ours.
            Some(unsure) if unsure.observed => {
                (turn.token, turn.sent_ns) = (unsure.token, unsure.sent_ns);
                turn.op = self.mark(unsure.token);
            }
            Some(unsure) => turn.op = RowOp::Abandon { token: unsure.token },
            None => self.begin(&mut turn),
        }
        Looked::Ask(turn)
    }

    /// Asks with a token that was never used.
    fn begin(&self, turn: &mut Turn) {
        turn.number = match self.wanted {
            Wanted::Observe(_) => self.shared.next_observation.fetch_add(1, Relaxed),
            Wanted::Claim(..) => self.engine.claims.token(),
        };
        turn.token = self.shared.token(turn.number);
        (turn.earlier, turn.won) = (None, false);
        turn.sent_ns = self.engine.time.now();
        turn.op = self.op(turn.token);
    }

    fn mark(&self, token: Token) -> RowOp<'static> {
        RowOp::Observe { token, keep: self.shared.keep, value: &[] }
    }

    fn op(&self, token: Token) -> RowOp<'static> {
        let Wanted::Claim(lease_ns, ..) = self.wanted else { return self.mark(token) };
        let (lease, keep, value) = (lease(lease_ns), self.shared.keep, &[]);
        RowOp::Claim { token, previous: None, lease, keep, value }
    }

    pub(super) fn refresh(&self) -> RowOp<'static> {
        RowOp::Refresh { keep: self.shared.keep }
    }

    pub(super) fn told(
        &self,
        round: &mut Round,
        turn: &mut Turn,
        answer: Result<RowAnswer, Failure>,
    ) -> Next<Said> {
        match (turn.op, answer) {
            (_, Err(failure)) => Next::Done(self.failed(round, turn, &failure)),
            (RowOp::Abandon { .. }, Ok(RowAnswer::Abandoned))
            | (RowOp::Forget { .. }, Ok(RowAnswer::Forgotten { .. })) => {
                self.begin(turn);
                Next::Again
            }
            (RowOp::Observe { .. }, Ok(RowAnswer::Marked)) if !self.observes() => {
                // It is marked by an observation that nobody was told of, though others may know of it:
                // they have to hear that it is not done.
                turn.op = RowOp::Forget { keep: self.shared.forget_keep };
                Next::Again
            }
            (RowOp::Observe { .. }, Ok(RowAnswer::Marked)) => {
                let late = self.engine.time.now().saturating_sub(turn.sent_ns);
                if late <= self.shared.slack_ns {
                    return Next::Done(self.won(round, turn));
                }
                // It lives for a window from when it was marked: it has to be from now.
                (turn.won, turn.op) = match turn.earlier {
                    // Marked by this call, so its end is far.
                    None => (true, self.refresh()),
                    // It may have ended when the next step comes, and another have marked the key: that
                    // must not be refreshed.
                    Some(unsure) => (false, RowOp::Abandon { token: unsure.token }),
                };
                Next::Again
            }
            (RowOp::Claim { .. }, Ok(RowAnswer::Granted { fence })) => {
                Next::Done(self.granted(round, turn, fence))
            }
            (_, Ok(RowAnswer::Duplicate { age, value })) => {
                self.duplicate_there(round, turn, age, value)
            }
            (_, Ok(RowAnswer::InFlight { lease_left, .. })) => {
                self.end(round, turn, None, |shard| {
                    shard.counters.in_flight += u64::from(self.observes());
                });
                Next::Done(Ok(Said::InFlight(lease_left)))
            }
            (RowOp::Refresh { .. }, Ok(RowAnswer::Refreshed)) if turn.won => {
                Next::Done(self.won(round, turn))
            }
            (RowOp::Refresh { .. }, Ok(RowAnswer::Refreshed)) => {
                Next::Done(self.refreshed(round, turn, None))
            }
            (RowOp::Refresh { .. }, Ok(RowAnswer::Absent)) if turn.known_here => {
                // It has just expired there, or was forgotten: that it is refreshed cannot be told.
                Next::Done(self.duplicate_here(round, turn))
            }
            (RowOp::Refresh { .. }, Ok(RowAnswer::Absent)) => {
                self.begin(turn);
                Next::Again
            }
            (_, Ok(_)) => Next::Done(self.failed(round, turn, &unfit())),
        }
    }

    /// Ends the turn with what is not known after it. A store that was closed meanwhile has no turns.
    pub(super) fn end(
        &self,
        round: &mut Round,
        turn: &Turn,
        unsure: Option<Unsure>,
        work: impl FnOnce(&mut Shard),
    ) {
        let tools = &self.engine.tools;
        if let Ok(mut shard) = self.engine.enter(self.engine.shard_of(turn.digest)) {
            work(&mut shard);
            shard.end_turn(tools, &mut round.call, turn.digest, unsure);
        }
    }

    /// Works on the shard of the turn's digest, and ends the turn. What cannot be kept here is kept by
    /// the authority.
    fn keep(
        &self,
        round: &mut Round,
        turn: &Turn,
        unsure: Option<Unsure>,
        keep: impl FnOnce(&mut Shard, &mut Call) -> Result<()>,
    ) {
        let tools = &self.engine.tools;
        let kept = self.engine.enter(self.engine.shard_of(turn.digest)).and_then(|mut shard| {
            let kept = keep(&mut shard, &mut round.call);
            shard.end_turn(tools, &mut round.call, turn.digest, unsure);
            kept
        });
        self.shared.not_kept.fetch_add(u64::from(kept.is_err()), Relaxed);
    }

    fn won(&self, round: &mut Round, turn: &Turn) -> Result<Said> {
        if let Err(error) = self.engine.settle_question(round, turn) {
            self.end(round, turn, turn.earlier, |_| {});
            return Err(error);
        }
        self.keep(round, turn, None, |shard, call| {
            shard.new += 1;
            shard.record_won(&self.engine.tools, call, turn.learned())
        });
        Ok(Said::New(None))
    }

    /// The authority holds the key for so long already: it is kept here in the slice of that time, so
    /// that it does not live longer here than there.
    pub(super) fn duplicate(&self, round: &mut Round, turn: &Turn, age: Duration) -> Said {
        let seen_ns = round.asked_ns.saturating_sub(crate::time::nanos(age));
        self.keep(round, turn, None, |shard, call| {
            shard.counters.duplicate += 1;
            let slice = shard.catalog.slice_at(seen_ns);
            let target = slice.map(|s| Target { slice: s.sequence, column: s.column });
            target.map_or(Ok(()), |target| {
                shard.learn(&self.engine.tools, call, turn.learned(), target)
            })
        });
        self.duplicate_with(turn)
    }

    fn duplicate_here(&self, round: &mut Round, turn: &Turn) -> Result<Said> {
        let mut said = Ok(Said::Duplicate(None));
        self.end(round, turn, turn.earlier, |shard| {
            shard.counters.duplicate += 1;
            said = self.duplicate_of(shard, turn.digest);
        });
        said
    }

    /// The mark lives on from now, there and here.
    fn refreshed(&self, round: &mut Round, turn: &Turn, unsure: Option<Unsure>) -> Result<Said> {
        let tools = &self.engine.tools;
        let mut said = None;
        self.keep(round, turn, unsure, |shard, call| {
            let target = shard.current();
            let mask = shard.suspects(turn.digest);
            match shard.find(turn.digest, mask)? {
                Some(seen) if !shard.was_forgotten(turn.digest) => {
                    said = Some(self.duplicate_of(shard, turn.digest));
                    shard.seen_again(tools, call, turn.digest, seen, target)
                }
                _ => {
                    shard.counters.duplicate += 1;
                    shard.learn(tools, call, turn.learned(), target)
                }
            }
        });
        said.unwrap_or_else(|| Ok(self.duplicate_with(turn)))
    }

    fn granted(&self, round: &mut Round, turn: &Turn, fence: u64) -> Result<Said> {
        let granted = self.grant(round, turn, fence, None);
        if granted.is_err() {
            self.engine.give_back(self.shared, turn.digest, turn.number);
        }
        granted
    }

    /// Grants a claim here, as the authority did. Its lease counts from before it was asked. `unsure` is
    /// what stays unknown meanwhile.
    fn grant(
        &self,
        round: &mut Round,
        turn: &Turn,
        fence: u64,
        unsure: Option<Unsure>,
    ) -> Result<Said> {
        let Wanted::Claim(lease_ns, notes, fingerprint) = self.wanted else {
            return self.won(round, turn);
        };
        let (digest, now_ns, event_ns) = (turn.digest, round.asked_ns, None);
        let request =
            ClaimRequest { digest, now_ns, lease_ns, event_ns, note: notes(turn.at), fingerprint };
        let mut shard = self.engine.enter(self.engine.shard_of(digest))?;
        let tools = &self.engine.tools;
        let granted = match &round.begun {
            Ok(()) => shard.grant(tools, &mut round.call, &request, turn.number),
            Err(error) => Err(error.again()),
        };
        shard.end_turn(tools, &mut round.call, digest, unsure);
        granted?;
        if let Some(claim) = shard.claims.get_mut(&digest) {
            claim.remote.fence = fence;
            let token = claim.public_token();
            if let Some(trace) = claim.kept.as_mut().and_then(|kept| kept.trace.as_mut()) {
                trace.token = token;
            }
        }
        round.relies.push(turn.at);
        let (token, public_token) = (turn.number, if fence > 0 { fence } else { turn.number });
        Ok(Said::New(Some(Grant { digest, token, public_token })))
    }

    /// The authority did not say.
    fn failed(&self, round: &mut Round, turn: &mut Turn, failure: &Failure) -> Result<Said> {
        let unsure = turn.unsure(self.observes(), round.asked_ns, failure);
        if self.policy == OnOutage::Fail {
            self.end(round, turn, unsure, |_| {});
            return Err(self.shared.error(failure, unsure.is_some()));
        }
        let assumed = self.assume(round, turn, unsure);
        if assumed.is_err() {
            self.end(round, turn, unsure, |_| {});
        }
        assumed
    }

    /// Goes on without the authority. What was asked and not answered stays: a key that is live here
    /// hides it, and when it is not any more, the mark that it may have made is not taken for another's.
    fn assume(&self, round: &mut Round, turn: &mut Turn, unsure: Option<Unsure>) -> Result<Said> {
        if turn.known_here {
            self.engine.note_assumed(self.shared)?;
            return self.refreshed(round, turn, unsure);
        }
        self.engine.assume_new(self.shared)?;
        if let Wanted::Claim(..) = self.wanted {
            if turn.number == 0 {
                self.begin(turn);
            }
            // The guard has the token of this very claim, and ends it.
            let unsure = unsure.filter(|unsure| unsure.token != turn.token);
            return self.grant(round, turn, 0, unsure);
        }
        if let Err(error) = &round.begun {
            return Err(error.again());
        }
        let tools = &self.engine.tools;
        let mut shard = self.engine.enter(self.engine.shard_of(turn.digest))?;
        shard.record_won(tools, &mut round.call, turn.learned())?;
        shard.new += 1;
        shard.end_turn(tools, &mut round.call, turn.digest, unsure);
        round.relies.push(turn.at);
        Ok(Said::New(None))
    }
}
