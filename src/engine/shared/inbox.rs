//! Commits that the user's own transaction carries out. Until it has ended the key is not known here: the
//! authority is asked, so a transaction that is rolled back leaves nothing.

use std::cell::Cell;

use super::drive::{Looked, Next};
use super::{Held, Shared, unfit};
use crate::authority::{Dialect, RowAnswer, RowOp, Statement};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::gather::Failure;

impl Engine {
    /// The statement that commits a claim. From here on the claim counts as one whose commit was
    /// attempted, and others of this store ask the authority about its key.
    pub(crate) fn commit_statement(&self, held: Held, dialect: Dialect) -> Result<Statement> {
        self.tick()?;
        let none = |why: String| Error::config("dialect", why);
        let Some(shared) = self.shared() else {
            return Err(none(
                "there is no authority whose database could keep the mark".to_owned(),
            ));
        };
        // What is kept with the key goes into the row, as with any other commit.
        let kept = {
            let shard = self.enter(self.shard_of(held.digest))?;
            let claim = shard.claims.get(&held.digest).filter(|claim| claim.token == held.token);
            let claim = claim.ok_or(Error::LeaseLost { token: held.token })?;
            claim.kept.as_deref().map(|kept| kept.encode(held.digest)).unwrap_or_default()
        };
        let op = RowOp::Commit { token: shared.token(held.token), keep: shared.keep, value: &kept };
        let Some(statement) = shared.link.statement(held.digest, op, dialect) else {
            return Err(none(format!("{} takes no statements of {dialect}", shared.link.name())));
        };
        self.tick_clock();
        let now_ns = self.time.now();
        let mut shard = self.enter(self.shard_of(held.digest))?;
        let claim = shard.claims.get_mut(&held.digest).filter(|claim| claim.token == held.token);
        let claim = claim.ok_or(Error::LeaseLost { token: held.token })?;
        if claim.remote.fence == 0 {
            let why = "the claim was granted in an outage, and it has no row: commit it as usual";
            return Err(shared.error(&Failure::refused(why), false));
        }
        if claim.remote.commit_ns == 0 {
            claim.remote.commit_ns = now_ns;
        }
        claim.remote.doubted = true;
        Ok(statement)
    }

    /// A statement that changes nothing, for who is let through in shadow mode.
    pub(crate) fn idle_statement(&self, digest: Digest, dialect: Dialect) -> Result<Statement> {
        let none = || Error::config("dialect", "the authority takes no such statements");
        let shared = self.shared().ok_or_else(none)?;
        let token = shared.token(self.claims.token());
        let op = RowOp::Commit { token, keep: shared.keep, value: &[] };
        shared.link.statement(digest, op, dialect).ok_or_else(none)
    }

    /// Marks here what the user's transaction has marked there. The authority is asked, so that a
    /// mistake of the caller's is no false duplicate.
    pub(crate) fn confirm(&self, held: Held) -> Result<()> {
        self.tick()?;
        let Some(shared) = self.shared() else { return Err(Error::Closed) };
        let confirmed = self.drive(
            shared,
            &[held.digest],
            (&Cell::new(true), OnOutage::Fail),
            |shard, _, at, digest| -> Looked<()> { self.turn(shard, at, digest, RowOp::Look) },
            |round, turn, answer| {
                let begun_ns = self.remote(held).map_or(turn.sent_ns, |remote| remote.commit_ns);
                let is_late = self.time.now().saturating_sub(begun_ns) > shared.slack_ns;
                let answer = match (turn.op, answer) {
                    (RowOp::Look, Ok(RowAnswer::Duplicate { value, .. })) => {
                        turn.value = self.accepted_if_sound(turn.digest, value);
                        if is_late {
                            // The transaction took long: it lives on from now.
                            turn.op = RowOp::Refresh { keep: shared.keep };
                            return Next::Again;
                        }
                        Ok(RowAnswer::Refreshed)
                    }
                    (_, answer) => answer,
                };
                let marked = said(shared, held, answer);
                Next::Done(self.end_commit(shared, held.token, round, turn, (marked, false)))
            },
        );
        confirmed.into_iter().flatten().next().unwrap_or(Err(Error::Closed))
    }
}

/// Whether the mark is there.
fn said(shared: &Shared, held: Held, answer: Result<RowAnswer, Failure>) -> Result<()> {
    match answer {
        Ok(RowAnswer::Duplicate { .. } | RowAnswer::Refreshed) => Ok(()),
        Ok(RowAnswer::InFlight { lease_left, .. }) => Err(Error::InFlight { lease_left }),
        Ok(RowAnswer::Absent) => Err(Error::LeaseLost { token: held.token }),
        Ok(_) => Err(shared.error(&unfit(), true)),
        Err(failure) => Err(shared.error(&failure, failure.undecided)),
    }
}
