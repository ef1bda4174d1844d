//! Claims and tombstones of a shard, each journaled before it is published.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering::Relaxed;

use super::kept::begin_kept;
use super::pending::Mark;
use super::{Call, Shard, Target, Tools};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::kept::Kept;
use crate::format::record::Record;
use crate::log::Level;
use crate::replay::Tombstone;

/// A claim in flight.
#[derive(Clone, Debug)]
pub(crate) struct ClaimState {
    pub(crate) token: u64,
    /// When it may be taken over, in time of the store.
    pub(crate) deadline_ns: i64,
    pub(crate) lease_ns: i64,
    /// What its commit counts from, in event time.
    pub(crate) event_ns: Option<i64>,
    /// Its owner ended without giving it back.
    pub(crate) orphaned: bool,
    pub(crate) note: Box<[u8]>,
    pub(crate) remote: Remote,
    /// What its commit keeps. It is not journaled before that.
    pub(crate) kept: Option<Box<Kept>>,
}

/// What the authority has to do with a claim. It is not journaled: claims found at open belong to dead
/// owners.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Remote {
    /// The authority's fencing token, zero for a claim that it does not know of.
    pub(crate) fence: u64,
    /// When its commit was first asked for, zero if it was not.
    pub(crate) commit_ns: i64,
    /// Its digest was forgotten, before or after it was granted: the authority knows.
    pub(crate) doubted: bool,
}

impl ClaimState {
    /// The token that its owner was given.
    pub(crate) fn public_token(&self) -> u64 {
        if self.remote.fence > 0 { self.remote.fence } else { self.token }
    }

    pub(crate) fn lease_left(&self, now_ns: i64) -> std::time::Duration {
        if self.orphaned {
            return std::time::Duration::ZERO;
        }
        std::time::Duration::from_nanos(self.deadline_ns.saturating_sub(now_ns).max(0) as u64)
    }

    pub(crate) fn is_expired(&self, now_ns: i64) -> bool {
        self.orphaned || self.deadline_ns <= now_ns
    }
}

/// What a claim asks for.
pub(crate) struct ClaimRequest<'a> {
    pub(crate) digest: Digest,
    pub(crate) now_ns: i64,
    pub(crate) lease_ns: i64,
    pub(crate) event_ns: Option<i64>,
    pub(crate) note: &'a [u8],
    /// Of the message; kept with its mark.
    pub(crate) fingerprint: Option<Digest>,
}

/// The answer of a shard to a claim.
pub(crate) enum ClaimAnswer {
    Granted,
    InFlight(std::time::Duration),
    Duplicate,
}

impl Shard {
    /// Writes a control record to the journal, and to the log if the level asks for it.
    #[inline(never)]
    pub(super) fn journal_control(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        record: &Record<'_>,
    ) -> Result<()> {
        self.journal_this(tools, call, record)
    }

    /// [`Shard::journal_control`] where it is called for every key: the kind of the record is known
    /// there, and with it most of what writing it decides.
    #[inline(always)]
    pub(super) fn journal_this(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        record: &Record<'_>,
    ) -> Result<()> {
        self.journal_only(tools, call, record)?;
        let logged = match tools.log.level() {
            Level::Off => false,
            Level::Tombstones => record.is_of_tombstone(),
            Level::Interval | Level::Sync => true,
        };
        if logged {
            let segment = self.active.as_ref().filter(|_| record.is_of_tombstone());
            let counted = segment.map(|active| (active.segment.id, active.segment.tombstones()));
            tools.log.append(record, counted);
        }
        Ok(())
    }

    #[inline(always)]
    fn journal_only(&mut self, tools: &Tools, call: &mut Call, record: &Record<'_>) -> Result<()> {
        if self.active.as_mut().is_some_and(|active| active.append_control(record)) {
            return Ok(());
        }
        self.journal_in_next_control_chunk(tools, call, record)
    }

    #[cold]
    #[inline(never)]
    fn journal_in_next_control_chunk(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        record: &Record<'_>,
    ) -> Result<()> {
        self.add_chunk(tools, call, |active, chunk| active.add_control_chunk(chunk))?;
        // A fresh chunk has room for any record.
        let appended = self.active.as_mut().is_some_and(|active| active.append_control(record));
        debug_assert!(appended);
        Ok(())
    }

    /// Publishes a claim.
    pub(crate) fn put_claim(&mut self, tools: &Tools, digest: Digest, claim: ClaimState) {
        self.claims.insert(digest, claim);
        self.tell_claims(tools);
    }

    /// Tells those who hold no lock how many claims there are.
    #[inline]
    pub(super) fn tell_claims(&self, tools: &Tools) {
        tools.claims_held.set(self.number, self.claims.len());
    }

    /// Ends a claim, if there is one.
    pub(crate) fn drop_claim(&mut self, tools: &Tools, digest: Digest) -> Option<ClaimState> {
        let claim = self.claims.remove(&digest);
        self.tell_claims(tools);
        claim
    }

    /// Takes a claim out of the table, if it still is the owner's. One look at the table serves both;
    /// nobody sees it before the lock is released.
    #[inline]
    pub(super) fn take_out_owned(&mut self, digest: Digest, token: u64) -> Result<ClaimState> {
        match self.claims.entry(digest) {
            Entry::Occupied(held) if held.get().token == token => Ok(held.remove()),
            _ => Err(Error::LeaseLost { token }),
        }
    }

    pub(super) fn claim_record(digest: Digest, state: &ClaimState) -> Record<'_> {
        Record::Claim {
            digest,
            token: state.token,
            deadline_ns: state.deadline_ns,
            event_ns: state.event_ns,
            note: Cow::Borrowed(&state.note),
        }
    }

    /// Grants the claim to `token`, unless the key is live or claimed by an owner whose lease runs.
    /// `target` is where an observation would go: a duplicate may be refreshed there.
    pub(crate) fn claim(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        request: &ClaimRequest<'_>,
        target: Target,
        token: impl FnOnce() -> u64,
    ) -> Result<ClaimAnswer> {
        let answer = self.may_claim(tools, call, request.digest, request.now_ns, target)?;
        if let ClaimAnswer::Granted = answer {
            self.grant(tools, call, request, token())?;
        }
        Ok(answer)
    }

    /// What a claim of the digest is answered; nothing is granted yet.
    #[inline]
    pub(super) fn may_claim(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        now_ns: i64,
        target: Target,
    ) -> Result<ClaimAnswer> {
        let held = if self.claims.is_empty() { None } else { self.claims.get(&digest) };
        if let Some(held) = held {
            if !held.is_expired(now_ns) {
                return Ok(ClaimAnswer::InFlight(held.lease_left(now_ns)));
            }
            return Ok(ClaimAnswer::Granted);
        }
        let mask = self.suspects(digest);
        if let Some(seen) = self.find_counted(digest, mask)? {
            self.seen_again(tools, call, digest, seen, target)?;
            return Ok(ClaimAnswer::Duplicate);
        }
        Ok(ClaimAnswer::Granted)
    }

    /// Journals and publishes a claim.
    pub(crate) fn grant(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        request: &ClaimRequest<'_>,
        token: u64,
    ) -> Result<()> {
        let state = ClaimState {
            token,
            deadline_ns: request.now_ns.saturating_add(request.lease_ns),
            lease_ns: request.lease_ns,
            event_ns: request.event_ns,
            orphaned: false,
            note: request.note.into(),
            remote: Remote::default(),
            kept: begin_kept(tools, token, request.now_ns, request.note, request.fingerprint),
        };
        self.journal_claim(tools, call, request.digest, &state)?;
        self.put_claim(tools, request.digest, state);
        self.note_pending(&tools.log, call, request.digest, || Mark::Claimed(token));
        self.counters.claims_granted += 1;
        Ok(())
    }

    #[inline(always)]
    fn journal_claim(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        state: &ClaimState,
    ) -> Result<()> {
        if state.event_ns.is_none() && state.note.is_empty() {
            let (token, deadline_ns) = (state.token, state.deadline_ns);
            let (event_ns, note) = (None, Cow::Borrowed(&[][..]));
            let record = Record::Claim { digest, token, deadline_ns, event_ns, note };
            return self.journal_this(tools, call, &record);
        }
        self.journal_control(tools, call, &Shard::claim_record(digest, state))
    }

    /// Time left of a claim that keeps others from the digest.
    pub(crate) fn held_for(
        &self,
        digest: Digest,
        now_ns: impl FnOnce() -> i64,
    ) -> Option<std::time::Duration> {
        let claim = self.claims.get(&digest)?;
        let now_ns = now_ns();
        (!claim.is_expired(now_ns)).then(|| claim.lease_left(now_ns))
    }

    /// An observation takes over a claim whose lease has run out, as another claim would; a claim
    /// whose lease runs refuses it.
    #[cold]
    pub(crate) fn displace_claim(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        now_ns: impl FnOnce() -> i64,
    ) -> Result<()> {
        let Some(claim) = self.claims.get(&digest) else { return Ok(()) };
        let token = claim.token;
        if let Some(lease_left) = self.held_for(digest, now_ns) {
            self.counters.in_flight += 1;
            return Err(Error::InFlight { lease_left });
        }
        self.journal_control(tools, call, &Record::Abandon { token })?;
        self.drop_claim(tools, digest);
        Ok(())
    }

    pub(crate) fn owned(&mut self, digest: Digest, token: u64) -> Result<&mut ClaimState> {
        match self.claims.get_mut(&digest) {
            Some(claim) if claim.token == token => Ok(claim),
            _ => Err(Error::LeaseLost { token }),
        }
    }

    pub(crate) fn claim_note(&mut self, digest: Digest, token: u64) -> Result<Vec<u8>> {
        self.owned(digest, token).map(|claim| claim.note.to_vec())
    }

    pub(crate) fn renew(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        token: u64,
        now_ns: i64,
    ) -> Result<()> {
        let mut renewed = self.owned(digest, token)?.clone();
        renewed.deadline_ns = now_ns.saturating_add(renewed.lease_ns);
        renewed.orphaned = false;
        self.journal_control(tools, call, &Shard::claim_record(digest, &renewed))?;
        self.put_claim(tools, digest, renewed);
        // The owner relies on it, but if it is lost the claim only ends earlier.
        call.must_sync |= tools.log.level() == Level::Sync;
        Ok(())
    }

    /// Marks a claimed key, and ends its claim; without a `target` there is nothing to mark. The digest
    /// goes first: a process that dies before the commit record is there leaves a live key, and
    /// recovery drops the claims of live keys.
    pub(crate) fn commit(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        token: u64,
        target: Option<Target>,
    ) -> Result<()> {
        let claim = self.take_out_owned(digest, token)?;
        if claim.kept.is_some() {
            return self.commit_kept(tools, call, digest, claim, target, |shard, call| {
                shard.commit(tools, call, digest, token, target)
            });
        }
        let committed = Record::Commit { token };
        let done = match target {
            Some(target) => self.record(tools, call, digest, target).map(|()| {
                // The key is live from here on; should this fail, recovery comes to the same result.
                let _ = self.journal_this(tools, call, &committed);
            }),
            None => self.journal_control(tools, call, &committed),
        };
        if let Err(error) = done {
            self.claims.insert(digest, claim);
            return Err(error);
        }
        self.tell_claims(tools);
        self.note_pending(&tools.log, call, digest, || Mark::Committed(Box::new(claim)));
        self.counters.claims_committed += 1;
        Ok(())
    }

    /// Gives a claim back, if it still is the owner's.
    pub(crate) fn abandon(&mut self, tools: &Tools, call: &mut Call, digest: Digest, token: u64) {
        if self.owned(digest, token).is_err() {
            return;
        }
        // Without its record the claim would be listed after a crash, and granted to the first who
        // asks: nothing is lost by that, and dropping a guard cannot fail.
        let _ = self.journal_control(tools, call, &Record::Abandon { token });
        self.drop_claim(tools, digest);
        self.counters.claims_abandoned += 1;
    }

    /// Makes the digest unknown; true if it was live. A claim on it is revoked.
    pub(crate) fn forget(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
    ) -> Result<bool> {
        let mask = self.suspects(digest);
        let live = self.find(digest, mask)?;
        if live.is_none() && !self.claims.contains_key(&digest) {
            return Ok(false);
        }
        let dead = self.tombstones.get(&digest).map_or(0, |tombstone| tombstone.newest);
        let newest = live.map_or(0, |slice| slice.max(dead));
        if live.is_some() && tools.has_kept.load(Relaxed) {
            self.forget_kept(tools, call, digest)?;
        }
        let record = Record::Tombstone { digest, slice: newest };
        self.journal_control(tools, call, &record)?;
        self.drop_claim(tools, digest);
        let Some(slice) = live else { return Ok(false) };
        let before = self.tombstones.insert(digest, Tombstone { newest, revived: 0 });
        self.note_pending(&tools.log, call, digest, || Mark::Forgotten(slice, before));
        self.count(slice, -1);
        tools.quota.give_back(1);
        self.counters.forgotten += 1;
        Ok(true)
    }

    /// Notes in a tombstone that its digest was recorded again, in `slice`. Returns what it was.
    #[cold]
    pub(crate) fn revive(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        slice: u64,
    ) -> Result<Option<Tombstone>> {
        let before = self.tombstones.get(&digest).copied();
        if before.is_some() {
            self.journal_control(tools, call, &Record::Revived { digest, slice })?;
            Tombstone::revive(&mut self.tombstones, digest, slice);
        }
        Ok(before)
    }

    /// Writes the claims and tombstones again, so that the segments they were in can go.
    pub(crate) fn carry_over(&mut self, tools: &Tools, call: &mut Call) -> Result<()> {
        // Tombstones first: one that follows a claim revokes it.
        let tombstones = std::mem::take(&mut self.tombstones);
        let carried = tombstones.iter().try_for_each(|(digest, tombstone)| {
            let (digest, slice) = (*digest, tombstone.revived);
            let record = Record::Tombstone { digest, slice: tombstone.newest };
            self.journal_control(tools, call, &record)?;
            if slice == 0 {
                return Ok(());
            }
            self.journal_control(tools, call, &Record::Revived { digest, slice })
        });
        self.tombstones = tombstones;
        carried?;
        self.carry_over_asked(tools, call)?;
        let claims = std::mem::take(&mut self.claims);
        let carried = claims.iter().try_for_each(|(digest, state)| {
            self.journal_control(tools, call, &Shard::claim_record(*digest, state))
        });
        self.claims = claims;
        carried
    }
}
