//! Claims of one visit of a batch to a shard: granted together and committed together, with one
//! record for all of them.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering::AcqRel;

use super::control::{ClaimAnswer, ClaimState};
use super::pending::Mark;
use super::{Call, Shard, Target, Tools};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::record::{MOST_CLAIMS, Record};

/// What the claims of a batch have in common.
pub(crate) struct Terms {
    pub(crate) now_ns: i64,
    pub(crate) lease_ns: i64,
    /// The next of the tokens that were set aside for the batch.
    pub(crate) next_token: u64,
    /// Claims that were granted; all keys of the batch were counted as held in advance.
    pub(crate) granted: usize,
}

/// Granted and not journaled yet: tokens follow each other.
struct Granted {
    first_token: u64,
    digests: [Digest; MOST_CLAIMS],
    len: usize,
    /// Claims whose leases had run out, and that are taken over.
    taken_over: Vec<(Digest, ClaimState)>,
}

impl Shard {
    /// Claims the keys of a visit, [`MOST_CLAIMS`] at most. After an error, what was granted in this
    /// visit is taken back.
    pub(crate) fn claim_together(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        terms: &mut Terms,
        keys: impl Iterator<Item = (usize, Digest)>,
        mut answer: impl FnMut(usize, ClaimAnswer, u64),
    ) -> Result<()> {
        let target = self.current();
        let mut granted = Granted {
            first_token: terms.next_token,
            digests: [Digest { hi: 0, lo: 0 }; MOST_CLAIMS],
            len: 0,
            taken_over: Vec::new(),
        };
        let mut result = Ok(());
        for (at, digest) in keys {
            match self.may_claim(tools, call, digest, terms.now_ns, target) {
                Ok(ClaimAnswer::Granted) => {
                    let token = self.take_in(tools, terms, &mut granted, digest);
                    answer(at, ClaimAnswer::Granted, token);
                }
                Ok(other) => answer(at, other, 0),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        result = result.and_then(|()| self.journal_granted(tools, call, terms, &granted));
        if result.is_err() {
            self.take_back(tools, terms, granted);
        }
        result
    }

    /// Publishes a claim before it is journaled: nobody sees it before the lock is released.
    fn take_in(
        &mut self,
        tools: &Tools,
        terms: &mut Terms,
        granted: &mut Granted,
        digest: Digest,
    ) -> u64 {
        let token = granted.first_token + granted.len as u64;
        let state = ClaimState {
            token,
            deadline_ns: terms.now_ns.saturating_add(terms.lease_ns),
            lease_ns: terms.lease_ns,
            event_ns: None,
            orphaned: false,
            note: Box::default(),
        };
        if let Some(before) = self.claims.insert(digest, state) {
            // It was counted, and so is the new one.
            tools.claims_held.fetch_sub(1, AcqRel);
            granted.taken_over.push((digest, before));
        }
        granted.digests[granted.len] = digest;
        granted.len += 1;
        terms.granted += 1;
        token
    }

    fn journal_granted(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        terms: &mut Terms,
        granted: &Granted,
    ) -> Result<()> {
        let digests = &granted.digests[..granted.len];
        if digests.is_empty() {
            return Ok(());
        }
        let deadline_ns = terms.now_ns.saturating_add(terms.lease_ns);
        let (first, digests) = (granted.first_token, Cow::Borrowed(digests));
        self.journal_control(tools, call, &Record::Claims { first, deadline_ns, digests })?;
        for (token, digest) in (first..).zip(&granted.digests[..granted.len]) {
            self.note_pending(&tools.log, call, *digest, Mark::Claimed(token));
        }
        self.counters.claims_granted += granted.len as u64;
        terms.next_token += granted.len as u64;
        Ok(())
    }

    #[cold]
    fn take_back(&mut self, tools: &Tools, terms: &mut Terms, granted: Granted) {
        for digest in &granted.digests[..granted.len] {
            self.claims.remove(digest);
        }
        terms.granted -= granted.len;
        for (digest, before) in granted.taken_over {
            self.put_claim(tools, digest, before);
        }
    }

    /// Commits the claims of a visit, [`MOST_CLAIMS`] at most, with a target each as
    /// [`Shard::commit`] has; `failed` gets place and error of those that were not.
    pub(crate) fn commit_together(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        claims: impl Iterator<Item = (usize, Digest, u64)>,
        target_of: impl Fn(&Shard, Digest) -> Option<Target>,
        mut failed: impl FnMut(usize, Error),
    ) {
        let (mut first, mut count, mut ended) = (0, 0, 0);
        for (at, digest, token) in claims {
            let Some(target) = target_of(self, digest) else {
                if let Err(error) = self.commit(tools, call, digest, token, None) {
                    failed(at, error);
                }
                continue;
            };
            match self.end_claim(tools, call, digest, token, target) {
                Ok(()) if token == first + count => count += 1,
                Ok(()) => {
                    self.journal_commits(tools, call, first, count);
                    (first, count) = (token, 1);
                }
                Err(error) => {
                    failed(at, error);
                    continue;
                }
            }
            ended += 1;
        }
        self.journal_commits(tools, call, first, count);
        self.counters.claims_committed += ended as u64;
        tools.claims_held.fetch_sub(ended, AcqRel);
    }

    /// Marks a claimed key and ends its claim. The record of that follows for all together.
    fn end_claim(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        token: u64,
        target: Target,
    ) -> Result<()> {
        let Entry::Occupied(held) = self.claims.entry(digest) else {
            return Err(Error::LeaseLost { token });
        };
        if held.get().token != token {
            return Err(Error::LeaseLost { token });
        }
        let claim = held.remove();
        if let Err(error) = self.record(tools, call, digest, target) {
            self.claims.insert(digest, claim);
            return Err(error);
        }
        if tools.log.has_marks() {
            self.note_pending(&tools.log, call, digest, Mark::Committed(Box::new(claim)));
        }
        Ok(())
    }

    /// The keys are live already; should this fail, recovery comes to the same result.
    fn journal_commits(&mut self, tools: &Tools, call: &mut Call, first: u64, count: u64) {
        let record = match count {
            0 => return,
            1 => Record::Commit { token: first },
            _ => Record::Commits { first, count },
        };
        let _ = self.journal_control(tools, call, &record);
    }
}
