//! Claims of one visit of a batch to a shard: granted together and committed together, with one
//! record for all of them.

use std::borrow::Cow;

use super::control::{ClaimAnswer, ClaimState, Remote};
use super::kept::begin_kept;
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
    next_token: u64,
    /// Granted in this visit and not journaled yet: tokens follow each other.
    digests: [Digest; MOST_CLAIMS],
    granted: usize,
    /// Claims whose leases had run out, and that are taken over in this visit.
    taken_over: Vec<(Digest, ClaimState)>,
}

impl Terms {
    pub(crate) fn new(now_ns: i64, lease_ns: i64, next_token: u64) -> Self {
        let digests = [Digest { hi: 0, lo: 0 }; MOST_CLAIMS];
        Terms { now_ns, lease_ns, next_token, digests, granted: 0, taken_over: Vec::new() }
    }
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
        terms.granted = 0;
        terms.taken_over.clear();
        let mut result = Ok(());
        for (at, digest) in keys {
            match self.may_claim(tools, call, digest, terms.now_ns, target) {
                Ok(ClaimAnswer::Granted) => {
                    let token = self.take_in(tools, terms, digest);
                    answer(at, ClaimAnswer::Granted, token);
                }
                Ok(other) => answer(at, other, 0),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        result = result.and_then(|()| self.journal_granted(tools, call, terms));
        if result.is_err() {
            self.take_back(tools, terms);
        }
        self.tell_claims(tools);
        result
    }

    /// Publishes a claim before it is journaled: nobody sees it before the lock is released.
    fn take_in(&mut self, tools: &Tools, terms: &mut Terms, digest: Digest) -> u64 {
        let token = terms.next_token + terms.granted as u64;
        let state = ClaimState {
            token,
            deadline_ns: terms.now_ns.saturating_add(terms.lease_ns),
            lease_ns: terms.lease_ns,
            event_ns: None,
            orphaned: false,
            note: Box::default(),
            remote: Remote::default(),
            kept: begin_kept(tools, token, terms.now_ns, &[], None),
        };
        if let Some(before) = self.claims.insert(digest, state) {
            terms.taken_over.push((digest, before));
        }
        terms.digests[terms.granted] = digest;
        terms.granted += 1;
        token
    }

    fn journal_granted(&mut self, tools: &Tools, call: &mut Call, terms: &mut Terms) -> Result<()> {
        let digests = &terms.digests[..terms.granted];
        if digests.is_empty() {
            return Ok(());
        }
        let deadline_ns = terms.now_ns.saturating_add(terms.lease_ns);
        let (first, digests) = (terms.next_token, Cow::Borrowed(digests));
        self.journal_this(tools, call, &Record::Claims { first, deadline_ns, digests })?;
        for (token, digest) in (first..).zip(&terms.digests[..terms.granted]) {
            self.note_pending(&tools.log, call, *digest, || Mark::Claimed(token));
        }
        self.counters.claims_granted += terms.granted as u64;
        terms.next_token += terms.granted as u64;
        Ok(())
    }

    #[cold]
    fn take_back(&mut self, tools: &Tools, terms: &mut Terms) {
        for digest in &terms.digests[..terms.granted] {
            self.claims.remove(digest);
        }
        for (digest, before) in terms.taken_over.drain(..) {
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
        self.tell_claims(tools);
    }

    /// Marks a claimed key and ends its claim. The record of that follows for all together.
    #[inline(always)]
    fn end_claim(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        token: u64,
        target: Target,
    ) -> Result<()> {
        let claim = self.take_out_owned(digest, token)?;
        if claim.kept.is_some() {
            return self.commit_kept(tools, call, digest, claim, Some(target), |shard, call| {
                shard.end_claim_again(tools, call, digest, token, target)
            });
        }
        if let Err(error) = self.make_known(tools, call, digest, target, None) {
            self.claims.insert(digest, claim);
            return Err(error);
        }
        self.count_new(target, 1);
        self.note_pending(&tools.log, call, digest, || Mark::Committed(Box::new(claim)));
        Ok(())
    }

    /// [`Shard::end_claim`] of a claim whose value is journaled.
    #[cold]
    #[inline(never)]
    fn end_claim_again(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        token: u64,
        target: Target,
    ) -> Result<()> {
        self.end_claim(tools, call, digest, token, target)
    }

    /// The keys are live already; should this fail, recovery comes to the same result.
    fn journal_commits(&mut self, tools: &Tools, call: &mut Call, first: u64, count: u64) {
        let _ = match count {
            0 => Ok(()),
            1 => self.journal_this(tools, call, &Record::Commit { token: first }),
            _ => self.journal_this(tools, call, &Record::Commits { first, count }),
        };
    }
}
