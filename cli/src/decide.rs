//! Decisions: asking the store about a batch of keys, and marking what was written.

use std::path::Path;

use anyhow::{Result, anyhow};
use onceonly::{Claim, ClaimGuard, CommitError, Dedup, Scope, Timestamp, Verdict};

use crate::setup::name_store;

/// The keys of a batch, with their times in event time.
pub(crate) enum Keys<'a> {
    Now(Vec<&'a [u8]>),
    At(Vec<(&'a [u8], Timestamp)>),
}

pub(crate) struct Decider {
    store: Dedup,
    scope: Scope,
    durable: bool,
    /// Answers to the last batch, one a key.
    verdicts: Vec<Verdict>,
    /// The claims of the `New` ones among them.
    guards: Vec<ClaimGuard>,
}

impl Decider {
    pub(crate) fn new(store: Dedup, scope: Option<&[u8]>, durable: bool) -> Self {
        let scope = scope.map_or_else(|| Scope::clone(&store), |name| store.scope(name));
        Decider { store, scope, durable, verdicts: Vec::new(), guards: Vec::new() }
    }

    /// Asks about the keys from number `from` on; answers all of them, or as many as can be answered
    /// before [`Decider::commit`]. In a store that outlives the run the new ones are only claimed,
    /// and commit marks them.
    pub(crate) fn decide(&mut self, keys: &Keys<'_>, from: usize) -> Result<&[Verdict]> {
        // Claims of a batch that was not committed are abandoned here at the latest.
        self.guards.clear();
        match (self.durable, keys) {
            (false, Keys::Now(keys)) => {
                self.scope.observe_batch_into(&keys[from..], &mut self.verdicts)?;
            }
            (false, Keys::At(keys)) => {
                self.verdicts = self.scope.observe_batch_at(&keys[from..])?
            }
            (true, Keys::Now(keys)) => self.claim(&keys[from..])?,
            (true, Keys::At(keys)) => self.claim_at(&keys[from..])?,
        }
        Ok(&self.verdicts)
    }

    fn claim(&mut self, keys: &[&[u8]]) -> Result<()> {
        self.verdicts.clear();
        for claim in self.scope.claim_batch(keys)? {
            let verdict = match claim {
                // The store has one owner, so the claim belongs to a line before this one.
                Claim::InFlight { .. } => Verdict::Duplicate,
                claim => self.verdict(claim)?,
            };
            self.verdicts.push(verdict);
        }
        Ok(())
    }

    fn claim_at(&mut self, keys: &[(&[u8], Timestamp)]) -> Result<()> {
        self.verdicts.clear();
        for (key, time) in keys {
            let verdict = match self.scope.claim_at(key, *time)? {
                // A line before this one has the key, but maybe more than a window earlier. The
                // answer is known when that one is committed.
                Claim::InFlight { .. } if !self.guards.is_empty() => break,
                claim => self.verdict(claim)?,
            };
            self.verdicts.push(verdict);
        }
        Ok(())
    }

    fn verdict(&mut self, claim: Claim) -> Result<Verdict> {
        Ok(match claim {
            Claim::Granted(guard) => {
                self.guards.push(guard);
                Verdict::New
            }
            Claim::Duplicate { .. } => Verdict::Duplicate,
            Claim::TooOld => Verdict::TooOld,
            other => return Err(anyhow!("unexpected answer of the store: {other:?}")),
        })
    }

    /// Marks the first `count` new keys of the last batch, whose lines were written; gives the
    /// others back.
    pub(crate) fn commit(&mut self, count: usize) -> Result<()> {
        self.guards.truncate(count);
        let commits = self.store.commit_batch(self.guards.drain(..));
        let failed = commits.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |error| Err(explain(error)))
    }

    pub(crate) fn store(&self) -> &Dedup {
        &self.store
    }

    /// Closes the store, so that an error shows in this run and not in the next.
    pub(crate) fn close(&mut self, dir: Option<&Path>) -> Result<()> {
        self.guards.clear();
        let closed = self.store.close();
        closed.map_err(|error| match dir {
            Some(dir) => name_store(dir)(error),
            None => error.into(),
        })
    }
}

fn explain(error: CommitError) -> anyhow::Error {
    anyhow::Error::new(error)
        .context("lines were written whose keys could not be marked: the next run repeats them")
}
