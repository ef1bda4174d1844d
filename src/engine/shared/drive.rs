//! The way of a call: look here, take turns, ask for the rest in one round trip, keep what it brings.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use crate::authority::{RowAnswer, RowOp, Token};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::gather::{Failure, Step};
use crate::shard::asked::Unsure;
use crate::shard::{Call, Shard};

/// A key whose turn this call has.
pub(super) struct Turn {
    /// Its place in the call.
    pub(super) at: usize,
    pub(super) digest: Digest,
    /// The step that is asked for next.
    pub(super) op: RowOp<'static>,
    /// The token of what is wanted, and when it was first asked with.
    pub(super) token: Token,
    pub(super) sent_ns: i64,
    /// The token that a claim has here.
    pub(super) number: u64,
    /// Asked before, and never answered.
    pub(super) earlier: Option<Unsure>,
    /// The authority has marked it for us, and is told that it lives on from now.
    pub(super) won: bool,
    /// It is a duplicate by what is known here.
    pub(super) known_here: bool,
    /// What is kept with its mark: what goes with the step, or what the authority has.
    pub(super) value: Option<Arc<[u8]>>,
}

impl Turn {
    pub(super) fn new(at: usize, digest: Digest, op: RowOp<'static>, sent_ns: i64) -> Self {
        let (token, number, earlier) = (Token::from_bytes([0; 16]), 0, None);
        let (won, known_here) = (false, false);
        let value = None;
        Turn { at, digest, op, token, sent_ns, number, earlier, won, known_here, value }
    }

    /// What the authority told of the key.
    pub(super) fn learned(&self) -> (Digest, Option<&Arc<[u8]>>) {
        (self.digest, self.value.as_ref())
    }

    /// What of an observation or claim is not known after `failure`: what was not known before, or what
    /// was just asked.
    pub(super) fn unsure(&self, observed: bool, last_ns: i64, failure: &Failure) -> Option<Unsure> {
        let asked = Unsure { observed, token: self.token, sent_ns: self.sent_ns, last_ns };
        let earlier = self.earlier.map(|earlier| Unsure { last_ns, ..earlier });
        match self.op {
            RowOp::Refresh { .. } if self.won => Some(asked),
            // Nobody was asked yet whether what is unknown was applied.
            RowOp::Refresh { .. } if self.known_here => earlier,
            RowOp::Refresh { .. } => None,
            RowOp::Observe { .. } | RowOp::Claim { .. } if self.earlier.is_none() => {
                failure.undecided.then_some(asked)
            }
            _ => earlier,
        }
    }
}

/// What there is to a key before anybody is asked.
pub(super) enum Looked<T> {
    Said(Result<T>),
    /// A duplicate, unless it was forgotten elsewhere meanwhile.
    Stale,
    /// Another call has its turn.
    Busy,
    Ask(Turn),
}

/// What becomes of a turn after an answer.
pub(super) enum Next<T> {
    /// Asked once more, with another step.
    Again,
    Done(Result<T>),
}

/// One round trip.
pub(super) struct Round {
    pub(super) call: Call,
    /// What is marked here is logged as the level of durability demands.
    pub(super) begun: Result<()>,
    /// When it was sent, in time of the store.
    pub(super) asked_ns: i64,
    /// Places of answers that rely on what was written here.
    pub(super) relies: Vec<usize>,
    /// Questions that were settled, and are not when what was written here is lost.
    pub(super) settled: Vec<(Digest, Unsure)>,
}

/// More round trips than any key needs, unless others change it all the time.
const MOST_ROUNDS: usize = 8;

impl Engine {
    /// Leads each of the `digests`, all different, to an answer; those that have none afterwards had
    /// theirs by `look`.
    pub(super) fn drive<T>(
        &self,
        shared: &Shared,
        digests: &[Digest],
        fresh: (&Cell<bool>, OnOutage),
        mut look: impl FnMut(&mut Shard, &mut Call, usize, Digest) -> Looked<T>,
        mut answered: impl FnMut(&mut Round, &mut Turn, Result<RowAnswer, Failure>) -> Next<T>,
    ) -> Vec<Option<Result<T>>> {
        let mut said: Vec<Option<Result<T>>> = digests.iter().map(|_| None).collect();
        let Ok(waiter) = self.waiter() else {
            return digests.iter().map(|_| Some(Err(Error::Forked))).collect();
        };
        let deadline = Instant::now() + shared.deadline;
        let mut open: Vec<usize> = (0..digests.len()).collect();
        while !open.is_empty() {
            let epoch = waiter.epoch();
            let (turns, busy, stale) = self.look_at(digests, &open, &mut look, &mut said);
            let waits = turns.is_empty() && stale.is_empty();
            self.converse(shared, turns, &mut answered, &mut said);
            if !stale.is_empty() {
                self.refresh_knowledge(shared, &stale, fresh, &mut said);
            }
            open = busy.into_iter().chain(stale).filter(|at| said[*at].is_none()).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if waits && left.is_zero() {
                for at in open.drain(..) {
                    let failure = Failure::waited_too_long();
                    said[at] = Some(Err(shared.error(&failure, false)));
                }
            } else if waits && !open.is_empty() {
                waiter.wait(epoch, left);
            }
        }
        said
    }

    /// Looks at the keys `open`; says which are to be asked for, which others ask for, and which are
    /// known here and may have been forgotten.
    fn look_at<T>(
        &self,
        digests: &[Digest],
        open: &[usize],
        look: &mut impl FnMut(&mut Shard, &mut Call, usize, Digest) -> Looked<T>,
        said: &mut [Option<Result<T>>],
    ) -> (Vec<Turn>, Vec<usize>, Vec<usize>) {
        let (mut turns, mut busy, mut stale) = (Vec::new(), Vec::new(), Vec::new());
        let mut call = Call::default();
        let mut here = Vec::new();
        let of_open = open.iter().map(|at| digests[*at]);
        let looked = self.for_each_of_batch(of_open, |shard, place, digest| {
            let at = open[place];
            match look(shard, &mut call, at, digest) {
                Looked::Said(answer) => {
                    said[at] = Some(answer);
                    here.push(at);
                }
                Looked::Stale => stale.push(at),
                Looked::Busy => busy.push(at),
                Looked::Ask(turn) => turns.push(turn),
            }
            Ok(())
        });
        // What is answered from here waits for what of it is not on the disk yet.
        let waited = self.finish(call);
        if let Err(error) = looked.and(waited) {
            for at in open {
                let asks = turns.iter().any(|turn| turn.at == *at);
                if here.contains(at) || !(asks || busy.contains(at) || stale.contains(at)) {
                    said[*at] = Some(Err(error.again()));
                }
            }
        }
        (turns, busy, stale)
    }

    /// Reads what others have forgotten, so that what is known here counts again.
    fn refresh_knowledge<T>(
        &self,
        shared: &Shared,
        stale: &[usize],
        (fresh, policy): (&Cell<bool>, OnOutage),
        said: &mut [Option<Result<T>>],
    ) {
        match shared.link.poll() {
            Err(failure) if policy == OnOutage::Fail => {
                for at in stale {
                    said[*at] = Some(Err(shared.error(&failure, false)));
                }
            }
            // Whoever goes on without the authority goes on with what is known here.
            Ok(()) | Err(_) => fresh.set(true),
        }
    }

    /// Asks for the turns, all in one call, until each has its answer.
    fn converse<T>(
        &self,
        shared: &Shared,
        mut turns: Vec<Turn>,
        answered: &mut impl FnMut(&mut Round, &mut Turn, Result<RowAnswer, Failure>) -> Next<T>,
        said: &mut [Option<Result<T>>],
    ) {
        for number in 0.. {
            if turns.is_empty() {
                return;
            }
            let step = |t: &Turn| Step::new(t.digest.into(), t.op).with_value(t.value.clone());
            let steps = turns.iter().map(step).collect();
            let asked_ns = self.time.now();
            let answers = match number < MOST_ROUNDS {
                true => shared.link.rows(steps),
                false => turns.iter().map(|_| Err(Failure::waited_too_long())).collect(),
            };
            let (call, begun) = match self.begin() {
                Ok(call) => (call, Ok(())),
                Err(error) => (Call::default(), Err(error)),
            };
            let mut round =
                Round { call, begun, asked_ns, relies: Vec::new(), settled: Vec::new() };
            let mut again = Vec::new();
            for (mut turn, answer) in turns.into_iter().zip(answers) {
                match answered(&mut round, &mut turn, answer) {
                    Next::Again => again.push(turn),
                    Next::Done(answer) => said[turn.at] = Some(answer),
                }
            }
            if let Err(error) = self.finish(round.call) {
                for at in round.relies {
                    said[at] = Some(Err(error.again()));
                }
                self.unsettle_questions(round.settled);
            }
            self.claims.changed();
            turns = again;
        }
    }

    /// Notes that a question of a turn has its answer, which must not be told without that. `Err`: it is
    /// not noted, and the turn goes on with the question.
    pub(super) fn settle_question(&self, round: &mut Round, turn: &Turn) -> Result<()> {
        let Some(earlier) = turn.earlier else { return Ok(()) };
        if let Err(error) = &round.begun {
            return Err(error.again());
        }
        let mut shard = self.enter(self.shard_of(turn.digest))?;
        shard.settle(&self.tools, &mut round.call, turn.digest)?;
        round.relies.push(turn.at);
        round.settled.push((turn.digest, Unsure { last_ns: round.asked_ns, ..earlier }));
        Ok(())
    }

    fn unsettle_questions(&self, settled: Vec<(Digest, Unsure)>) {
        let mut call = Call::default();
        for (digest, unsure) in settled {
            if let Ok(mut shard) = self.enter(self.shard_of(digest)) {
                shard.unsettle(&self.tools, &mut call, digest, unsure);
            }
        }
        // Without it, it is known until the process ends.
        let _ = self.finish(call);
    }
}
