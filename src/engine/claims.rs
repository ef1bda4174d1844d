//! Claims as the engine sees them: tokens, waiters, and the calls that lead to a shard.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use super::{Engine, Held};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::kept::Kept;
use crate::shard::control::{ClaimAnswer, ClaimRequest};
use crate::shard::together::Terms;
use crate::shard::{Call, Shard, Target};
use crate::stats::ClaimInfo;
use crate::sync::{AtomicU64, AtomicUsize, Condvar, Mutex};
use crate::time::Timestamp;

/// The answer to a claim, before there is a guard.
pub(crate) enum Attempt {
    Granted(Grant),
    InFlight {
        lease_left: Duration,
    },
    /// With what is kept with the key.
    Duplicate(Option<Box<Kept>>),
    /// The mark is of a message with another fingerprint.
    Conflict,
    TooOld,
}

/// What a guard is made of.
pub(crate) struct Grant {
    pub(crate) digest: Digest,
    pub(crate) token: u64,
    /// What others know the claim by: the same, or the authority's fencing token.
    pub(crate) public_token: u64,
}

impl Grant {
    fn local(digest: Digest, token: u64) -> Self {
        Grant { digest, token, public_token: token }
    }
}

/// How a claim is made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// The store's, if none.
    pub(crate) lease_ns: Option<i64>,
    pub(crate) note: &'a [u8],
    /// Of the message.
    pub(crate) fingerprint: Option<Digest>,
}

pub(super) struct Claims {
    next_token: AtomicU64,
    /// Counts the claims that ended while somebody waited.
    epoch: Mutex<u64>,
    changed: Condvar,
    waiting: AtomicUsize,
}

/// Tokens of one open; the number of the open is above them, so that tokens grow across restarts.
const TOKEN_BITS: u32 = 40;

impl Claims {
    pub(super) fn new(opens: u64) -> Self {
        Claims {
            next_token: AtomicU64::new(opens << TOKEN_BITS | 1),
            epoch: Mutex::new(0),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(super) fn token(&self) -> u64 {
        self.tokens(1)
    }

    /// Sets tokens aside; returns the first.
    fn tokens(&self, count: usize) -> u64 {
        self.next_token.fetch_add(count as u64, Relaxed)
    }

    /// Wakes those who wait for a claim to end.
    pub(super) fn changed(&self) {
        if self.waiting.load(Acquire) > 0 {
            *self.epoch.lock() += 1;
            self.changed.notify_all();
        }
    }
}

/// Notices claims that end. Has to be there before the claim is refused that is waited for: who ends
/// a claim wakes nobody where nobody waits.
pub(crate) struct Waiter<'a>(&'a Claims);

impl Waiter<'_> {
    pub(crate) fn epoch(&self) -> u64 {
        *self.0.epoch.lock()
    }

    /// Waits until a claim ended since `epoch` was read, or `most` has passed.
    pub(crate) fn wait(&self, epoch: u64, most: Duration) {
        let mut now = self.0.epoch.lock();
        if *now == epoch {
            self.0.changed.wait_for(&mut now, most);
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, AcqRel);
    }
}

fn attempt(answer: ClaimAnswer, digest: Digest, token: u64) -> Attempt {
    match answer {
        ClaimAnswer::Granted => Attempt::Granted(Grant::local(digest, token)),
        ClaimAnswer::InFlight(lease_left) => Attempt::InFlight { lease_left },
        ClaimAnswer::Duplicate => Attempt::Duplicate(None),
    }
}

impl Engine {
    pub(crate) fn claim(
        &self,
        digest: Digest,
        event_time: Option<Timestamp>,
        wish: Wish<'_>,
        on_outage: OnOutage,
    ) -> Result<Attempt> {
        self.prefetch(digest);
        let Wish { lease_ns, note, fingerprint } = wish;
        match event_time {
            None if self.is_alone() => {}
            None => {
                if let Some(shared) = self.admit(&[digest], on_outage)? {
                    return self.claim_shared(shared, digest, wish, on_outage);
                }
                if self.config.event_time {
                    return Err(self.refusal(false, "claim"));
                }
            }
            Some(time) => {
                self.require_event_time(true, "claim_at")?;
                self.advance_to(time)?;
            }
        }
        // Before the table is asked, so that a lease never ends later than its owner believes.
        let lease_ns = lease_ns.unwrap_or(self.config.lease_ns);
        let now_ns = self.time.now_for(lease_ns);
        let event_ns = event_time.map(Timestamp::as_unix_nanos);
        let request = ClaimRequest { digest, now_ns, lease_ns, event_ns, note, fingerprint };
        let mut token = 0;
        let answer = self.with_shard(digest, |shard, call| {
            let target = match event_ns {
                Some(time_ns) => self.event_target(shard, time_ns),
                None => Some(shard.current()),
            };
            let Some(target) = target else {
                shard.counters.too_old += 1;
                return Ok(None);
            };
            let next_token = || {
                token = self.claims.token();
                token
            };
            shard.claim(&self.tools, call, &request, target, next_token).map(Some)
        })?;
        match answer {
            None => Ok(Attempt::TooOld),
            Some(ClaimAnswer::Duplicate) if self.keeps() => {
                self.duplicate_with(digest, fingerprint)
            }
            Some(answer) => Ok(attempt(answer, digest, token)),
        }
    }

    /// Claims many keys; `answer` gets each key's place and attempt, shard by shard. After an error,
    /// the guards of what was granted give it back.
    pub(crate) fn claim_batch(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
        lease_ns: Option<i64>,
        on_outage: OnOutage,
        mut answer: impl FnMut(usize, Attempt),
    ) -> Result<()> {
        if !self.is_alone() {
            let digests: Vec<Digest> = digests.collect();
            return self.claim_batch_otherwise(&digests, lease_ns, on_outage, &mut answer);
        }
        self.claim_batch_alone(digests, lease_ns, answer)
    }

    #[cold]
    #[inline(never)]
    fn claim_batch_otherwise(
        &self,
        digests: &[Digest],
        lease_ns: Option<i64>,
        on_outage: OnOutage,
        answer: &mut dyn FnMut(usize, Attempt),
    ) -> Result<()> {
        match self.admit(digests, on_outage)? {
            Some(shared) => {
                let lease_ns = lease_ns.unwrap_or(self.config.lease_ns);
                self.claim_batch_shared(shared, digests, lease_ns, on_outage, answer)
            }
            None if self.config.event_time => Err(self.refusal(false, "claim_batch")),
            None => self.claim_batch_alone(digests.iter().copied(), lease_ns, answer),
        }
    }

    #[inline(always)]
    fn claim_batch_alone(
        &self,
        digests: impl ExactSizeIterator<Item = Digest>,
        lease_ns: Option<i64>,
        mut answer: impl FnMut(usize, Attempt),
    ) -> Result<()> {
        let now_ns = self.time.now();
        let lease_ns = lease_ns.unwrap_or(self.config.lease_ns);
        let mut call = self.begin()?;
        let next_token = self.claims.tokens(digests.len());
        let mut terms = Terms::new(now_ns, lease_ns, next_token);
        let mut duplicates = Vec::new();
        let result = self.for_each_visit(digests, |shard, keys| {
            let tools = &self.tools;
            let claimed =
                shard.claim_together(tools, &mut call, &mut terms, keys, |at, given, token| {
                    match given {
                        ClaimAnswer::Duplicate if self.keeps() => duplicates.push(at),
                        given => answer(at, attempt(given, keys.digest(at), token)),
                    }
                });
            for at in duplicates.drain(..) {
                answer(at, self.duplicate_in(shard, keys.digest(at), None)?);
            }
            claimed
        });
        result.and(self.finish(call))
    }

    pub(crate) fn claim_note(&self, digest: Digest, token: u64) -> Result<Vec<u8>> {
        self.tick()?;
        self.read_shard(digest, |shard, _| shard.claim_note(digest, token))
    }

    pub(crate) fn renew(&self, held: Held) -> Result<()> {
        if !self.is_alone()
            && let Some(shared) = self.admit(&[], held.on_outage)?
        {
            return self.renew_shared(shared, held);
        }
        let Held { digest, token, .. } = held;
        let now_ns = self.time.now();
        self.with_shard(digest, |shard, call| shard.renew(&self.tools, call, digest, token, now_ns))
    }

    /// Has the commit of a claim keep a result.
    pub(crate) fn keep(&self, held: Held, result: &[u8]) -> Result<()> {
        self.tick()?;
        self.read_shard(held.digest, |shard, _| {
            let claim = shard.owned(held.digest, held.token)?;
            claim.kept.get_or_insert_default().result = Some(result.to_vec());
            Ok(())
        })
    }

    pub(crate) fn commit(&self, held: Held) -> Result<()> {
        if !self.is_alone()
            && let Some(shared) = self.admit(&[], held.on_outage)?
        {
            let committed = self.commit_shared(shared, &[held]);
            return committed.into_iter().next().unwrap_or(Err(Error::Closed));
        }
        let Held { digest, token, .. } = held;
        let committed = self.with_shard(digest, |shard, call| {
            let target = self.commit_target(shard, digest);
            shard.commit(&self.tools, call, digest, token, target)
        });
        self.claims.changed();
        committed
    }

    /// The slice a commit goes to: in event time that of the claim's timestamp. `None` when that has
    /// left the window, or had left it before the window was made longer: there is nothing to
    /// remember any more, and a slice that began later would remember the key for too long.
    fn commit_target(&self, shard: &Shard, digest: Digest) -> Option<Target> {
        if !self.config.event_time {
            return Some(shard.current());
        }
        let claim = shard.claims.get(&digest);
        let Some(time_ns) = claim.and_then(|claim| claim.event_ns) else {
            return Some(shard.current());
        };
        match shard.catalog.slice_at(time_ns) {
            Some(slice) => Some(Target { slice: slice.sequence, column: slice.column }),
            None if time_ns < shard.catalog.slices[0].start_ns => None,
            None => Some(shard.current()),
        }
    }

    /// Commits `len` claims of this store, each told by its place; `failed` gets place and error of
    /// those that were not.
    pub(crate) fn commit_batch(
        &self,
        len: usize,
        claim_of: impl Fn(usize) -> Held,
        mut failed: impl FnMut(usize, Error),
    ) {
        let mut admitted = Ok(None);
        if !self.is_alone() {
            let policy = if len > 0 { claim_of(0).on_outage } else { OnOutage::Fail };
            admitted = self.admit(&[], policy);
        }
        if let Ok(Some(shared)) = admitted {
            let claims: Vec<Held> = (0..len).map(claim_of).collect();
            let committed = self.commit_shared(shared, &claims);
            for (at, committed) in committed.into_iter().enumerate() {
                committed.unwrap_or_else(|error| failed(at, error));
            }
            return;
        }
        let mut call = match admitted.and_then(|_| self.begin()) {
            Ok(call) => call,
            Err(error) => {
                return (0..len).for_each(|at| failed(at, error.again()));
            }
        };
        let mut refused = Vec::new();
        let digests = (0..len).map(|at| claim_of(at).digest);
        let target_of = |shard: &Shard, digest| self.commit_target(shard, digest);
        let whole = self.for_each_visit(digests, |shard, keys| {
            let keys = keys.map(|(at, digest)| (at, digest, claim_of(at).token));
            let note = |at, error| refused.push((at, error));
            shard.commit_together(&self.tools, &mut call, keys, target_of, note);
            Ok(())
        });
        let synced = whole.and(self.finish(call));
        self.claims.changed();
        if let Err(error) = synced {
            for at in 0..len {
                if refused.iter().all(|(refused, _)| *refused != at) {
                    failed(at, error.again());
                }
            }
        }
        refused.into_iter().for_each(|(at, error)| failed(at, error));
    }

    pub(crate) fn abandon(&self, digest: Digest, token: u64) {
        // In a forked child the claim is the parent's.
        if self.origin.mark() == 0 {
            return;
        }
        if let Some(shared) = self.shared() {
            self.abandon_shared(shared, digest, token);
        }
        // A closed store has no claims to give back; the next open grants them again. Nobody waits
        // for the disk: what is lost of it is granted again too.
        let _ = self.read_shard(digest, |shard, call| {
            shard.abandon(&self.tools, call, digest, token);
            Ok(())
        });
        self.claims.changed();
    }

    /// From here on the end of any claim is noticed.
    pub(crate) fn waiter(&self) -> Result<Waiter<'_>> {
        self.refuse_forked()?;
        self.claims.waiting.fetch_add(1, AcqRel);
        Ok(Waiter(&self.claims))
    }

    pub(crate) fn claims(&self) -> Result<Vec<ClaimInfo>> {
        self.refuse_forked()?;
        let now_ns = self.time.now();
        let mut all = Vec::new();
        for index in 0..self.shards.len() {
            let shard = self.enter(index)?;
            all.extend(shard.claims.iter().map(|(digest, claim)| ClaimInfo {
                token: claim.public_token(),
                digest: format!("{:016x}{:016x}", digest.hi, digest.lo),
                lease_left: claim.lease_left(now_ns),
                orphaned: claim.orphaned,
                event_time: claim.event_ns.map(Timestamp::from_unix_nanos),
                note: claim.note.to_vec(),
            }));
        }
        all.sort_by_key(|claim| claim.token);
        Ok(all)
    }

    /// Takes over each claim whose lease has run out, and hands it to `answer`.
    pub(crate) fn take_over_expired(&self, mut answer: impl FnMut(Grant)) -> Result<()> {
        self.refuse_forked()?;
        if !self.is_alone()
            && let Some(shared) = self.admit(&[], OnOutage::Fail)?
        {
            return self.take_over_shared(shared, answer);
        }
        let now_ns = self.time.now();
        let mut call = self.begin()?;
        let mut taken_over = Ok(());
        for index in 0..self.shards.len() {
            taken_over = self.take_over_in(index, now_ns, &mut call, &mut answer);
            if taken_over.is_err() {
                break;
            }
        }
        taken_over.and(self.finish(call))
    }

    fn take_over_in(
        &self,
        index: usize,
        now_ns: i64,
        call: &mut Call,
        answer: &mut impl FnMut(Grant),
    ) -> Result<()> {
        let mut shard = self.enter(index)?;
        let expired = shard.claims.iter().filter(|(_, claim)| claim.is_expired(now_ns));
        let expired: Vec<_> = expired.map(|(d, claim)| (*d, claim.clone())).collect();
        for (digest, claim) in expired {
            let (lease_ns, event_ns) = (self.config.lease_ns, claim.event_ns);
            let fingerprint = claim.kept.as_ref().and_then(|kept| kept.fingerprint);
            let note = &claim.note;
            let request = ClaimRequest { digest, now_ns, lease_ns, event_ns, note, fingerprint };
            let token = self.claims.token();
            shard.grant(&self.tools, call, &request, token)?;
            answer(Grant::local(digest, token));
        }
        Ok(())
    }
}
