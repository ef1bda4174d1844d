//! The calls of a namespace.

use std::sync::Arc;
use std::time::Instant;

use super::Scope;
use crate::claim::{self, Claim, ClaimGuard, ClaimOptions, Manner, Outcome, ProcessError};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::Result;
use crate::explain::Explanation;
use crate::time::Timestamp;
use crate::verdict::{BatchError, Seen, Verdict};

impl Scope {
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.handle.engine
    }

    /// The same scope with another policy for what is answered while the authority cannot be asked. On
    /// a store without an authority it changes nothing.
    ///
    /// A guard has the policy of the scope that granted it.
    #[must_use]
    pub fn on_outage(&self, policy: OnOutage) -> Scope {
        let manner = Manner { on_outage: policy, ..self.manner };
        Scope { manner, ..self.clone() }
    }

    #[inline]
    pub(super) fn digest(&self, key: impl AsRef<[u8]>) -> Digest {
        self.hasher.digest(key.as_ref())
    }

    /// Checks and marks in one step: of any number of concurrent callers with one key, one gets
    /// `New`. The key counts as seen from here on, whatever becomes of the work ("at most once");
    /// use [`Scope::process_once`] or [`Scope::claim`] where the work may fail.
    ///
    /// # Errors
    /// [`crate::Error::InFlight`] when the key is claimed, [`crate::Error::Full`],
    /// [`crate::Error::Io`], [`crate::Error::Corrupt`], [`crate::Error::Closed`],
    /// [`crate::Error::Mode`] in event-time stores, [`crate::Error::Poisoned`] at
    /// [`crate::Durability::Sync`]. With an authority [`crate::Error::Authority`] and
    /// [`crate::Error::Undecided`]. An error does not mark.
    #[inline]
    pub fn observe(&self, key: impl AsRef<[u8]>) -> Result<Verdict> {
        if self.manner.is_plain() {
            return self.engine().observe(self.digest(key), self.manner.on_outage);
        }
        self.observe_in_its_manner(key.as_ref())
    }

    #[cold]
    #[inline(never)]
    fn observe_in_its_manner(&self, key: &[u8]) -> Result<Verdict> {
        let said = match self.seen_before(key) {
            Ok(false) => self.engine().observe(self.digest(key), self.manner.on_outage),
            Ok(true) => Ok(Verdict::Duplicate),
            Err(error) => Err(error),
        };
        self.manner.verdict(self.engine(), said)
    }

    /// [`Scope::observe`] of a message that `fingerprint` tells from others under the same key: its payload,
    /// or a hash of it. The store keeps 128 bits of that with the mark. Another one under the same key is
    /// [`Seen::Conflict`], never silently a duplicate; a key that was marked without one is a duplicate for
    /// all.
    ///
    /// # Errors
    /// Those of [`Scope::observe`]; [`crate::Error::Corrupt`] also when the fingerprint that was kept is
    /// damaged.
    pub fn observe_with(
        &self,
        key: impl AsRef<[u8]>,
        fingerprint: impl AsRef<[u8]>,
    ) -> Result<Seen> {
        let fingerprint = claim::fingerprint(&self.hasher, fingerprint.as_ref());
        let policy = self.manner.on_outage;
        let said = match self.seen_before(key.as_ref()) {
            Ok(false) => self.engine().observe_with(self.digest(key), fingerprint, policy),
            Ok(true) => Ok(Seen::Duplicate),
            Err(error) => Err(error),
        };
        self.manner.seen(self.engine(), said)
    }

    /// [`Scope::observe`] at `time`, in stores opened with `event_time(true)`: late but within the
    /// window goes to its own slice, older is `TooOld`.
    ///
    /// # Errors
    /// Those of [`Scope::observe`], and [`crate::Error::TimestampAhead`].
    pub fn observe_at(&self, key: impl AsRef<[u8]>, time: impl Into<Timestamp>) -> Result<Verdict> {
        let said = self.engine().observe_at(self.digest(key), time.into());
        self.manner.verdict(self.engine(), said)
    }

    /// [`Scope::observe`] for many keys at once, several times as fast: the memory latency of one
    /// key is spent on the others. Among equal keys the first wins. 32 to 1,024 keys are best.
    ///
    /// # Errors
    /// Those of [`Scope::observe`], as a [`BatchError`]. Space is reserved before the first mark, so
    /// an error marks nothing, with one exception: a key that another thread claims during the call
    /// leaves the others decided, as [`BatchError::into_parts`] tells. With an authority each key is
    /// decided by itself, in one round trip for those that are not known here, and an error leaves the
    /// others as they are.
    pub fn observe_batch<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Verdict>, BatchError> {
        let mut verdicts = Vec::new();
        self.observe_batch_into(keys, &mut verdicts)?;
        Ok(verdicts)
    }

    /// [`Scope::observe_batch`] into a vector of the caller's, which is cleared first.
    ///
    /// # Errors
    /// Those of [`Scope::observe_batch`].
    pub fn observe_batch_into<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), BatchError> {
        let digests = keys.iter().map(|key| self.hasher.digest(key.as_ref()));
        let policy = self.manner.on_outage;
        let said = match self.manner.legacy {
            true => self.observe_batch_before(keys, verdicts),
            false => self.engine().observe_batch(digests, verdicts, policy),
        };
        self.manner.batch(self.engine(), said, verdicts, |at| self.shadow(false).observe(&keys[at]))
    }

    /// [`Scope::observe_batch`] in event time.
    ///
    /// # Errors
    /// Those of [`Scope::observe_batch`] and [`Scope::observe_at`].
    pub fn observe_batch_at<K: AsRef<[u8]>>(
        &self,
        keys: &[(K, Timestamp)],
    ) -> Result<Vec<Verdict>, BatchError> {
        let digests = keys.iter().map(|(key, time)| (self.hasher.digest(key.as_ref()), *time));
        let (mut verdicts, said) = match self.engine().observe_batch_at(digests) {
            Ok(verdicts) => (verdicts, Ok(())),
            Err(failed) => (Vec::new(), Err(failed)),
        };
        self.manner.batch(self.engine(), said, &mut verdicts, |at| {
            self.engine().observe_at(self.digest(&keys[at].0), keys[at].1)
        })?;
        Ok(verdicts)
    }

    /// Whether the key is live. Does not mark it. A claimed key is not live yet.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Corrupt`], [`crate::Error::Closed`]. With an authority
    /// [`crate::Error::Authority`], and [`crate::Error::Undecided`] while nobody knows whether a call
    /// without a reply has marked the key: observe or claim it.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        if self.manner.is_plain() {
            return self.engine().contains(self.digest(key), self.manner.on_outage);
        }
        self.contains_in_its_manner(key.as_ref())
    }

    #[cold]
    #[inline(never)]
    fn contains_in_its_manner(&self, key: &[u8]) -> Result<bool> {
        let said = match self.seen_before(key) {
            Ok(false) => self.engine().contains(self.digest(key), self.manner.on_outage),
            before => before,
        };
        self.manner.found(said)
    }

    /// [`Scope::contains`] for many keys, memory latency hidden.
    ///
    /// # Errors
    /// Those of [`Scope::contains`].
    pub fn contains_batch<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<bool>> {
        let digests = keys.iter().map(|key| self.hasher.digest(key.as_ref()));
        let said = self.engine().contains_batch(digests, self.manner.on_outage);
        let said = said.and_then(|mut live| {
            let before = self.batch_before(keys)?.into_iter();
            live.iter_mut().zip(before).for_each(|(live, before)| *live |= before);
            Ok(live)
        });
        if !self.manner.shadow {
            return said;
        }
        self.manner.found(said.map(|_| false)).map(|_| vec![false; keys.len()])
    }

    /// A hint that `key` is observed soon: fetches its cache line. Call it before the work on the
    /// previous message.
    pub fn prefetch(&self, key: impl AsRef<[u8]>) {
        self.engine().prefetch(self.digest(key));
    }

    /// Makes the next observe of `key` answer `New`; true if the key was live. A claim on the key is
    /// revoked (its commit is refused). Synced before it returns. With an authority the stores of other
    /// processes notice within [`crate::Builder::forget_lag`].
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Poisoned`], [`crate::Error::Corrupt`],
    /// [`crate::Error::Closed`]. With an authority [`crate::Error::Authority`], also where no reply came
    /// and it may be forgotten all the same: forget it again.
    pub fn forget(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let before = self.manner.legacy
            && self.engine().asks_legacy()
            && self.engine().forget_legacy(key.as_ref())?;
        Ok(self.engine().forget(self.digest(key))? || before)
    }

    /// Takes `key` for processing, for the store's lease.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Corrupt`], [`crate::Error::Closed`],
    /// [`crate::Error::Mode`] in event-time stores (use [`Scope::claim_at`]),
    /// [`crate::Error::Poisoned`] at [`crate::Durability::Sync`]. With an authority
    /// [`crate::Error::Authority`], and [`crate::Error::Undecided`] where no reply came: the next claim by
    /// this store finds out.
    pub fn claim(&self, key: impl AsRef<[u8]>) -> Result<Claim> {
        if self.manner.legacy
            && let Some(before) = self.claimed_before(key.as_ref())
        {
            return before;
        }
        claim::claim_now(self.engine(), self.digest(key), self.manner)
    }

    /// [`Scope::claim`] with a lease, a note or a fingerprint of its own.
    ///
    /// # Errors
    /// Those of [`Scope::claim`], and [`crate::Error::Config`] for a note that is too long.
    pub fn claim_with(&self, key: impl AsRef<[u8]>, options: ClaimOptions) -> Result<Claim> {
        if let Some(before) = self.claimed_before(key.as_ref()) {
            return before;
        }
        let digest = self.digest(key);
        claim::claim(self.engine(), &self.hasher, digest, None, &options, self.manner)
    }

    /// [`Scope::claim`] at `time`, in stores opened with `event_time(true)`; a commit records the
    /// key in the slice of `time`.
    ///
    /// # Errors
    /// Those of [`Scope::claim`] and [`crate::Error::TimestampAhead`].
    pub fn claim_at(&self, key: impl AsRef<[u8]>, time: impl Into<Timestamp>) -> Result<Claim> {
        let (digest, options) = (self.digest(key), ClaimOptions::default());
        let time = Some(time.into());
        claim::claim(self.engine(), &self.hasher, digest, time, &options, self.manner)
    }

    /// [`Scope::claim`], waiting until `deadline` while another owner works on the key. Never
    /// answers `InFlight` before the deadline.
    ///
    /// # Errors
    /// Those of [`Scope::claim`].
    pub fn claim_wait(&self, key: impl AsRef<[u8]>, deadline: Instant) -> Result<Claim> {
        if let Some(before) = self.claimed_before(key.as_ref()) {
            return before;
        }
        claim::claim_wait(self.engine(), self.digest(key), deadline, self.manner)
    }

    /// [`Scope::claim`] for many keys; a repeated key in the batch is `InFlight`.
    ///
    /// # Errors
    /// Those of [`Scope::claim`]; claims granted before the error are abandoned again.
    pub fn claim_batch<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Claim>> {
        if self.manner.legacy {
            return self.claim_batch_before(keys);
        }
        let digests: Vec<Digest> = keys.iter().map(|key| self.digest(key)).collect();
        claim::claim_batch(self.engine(), &digests, &ClaimOptions::default(), self.manner)
    }

    /// Claims `key`, runs `work`, and commits when it returns `Ok`. When it returns `Err` or panics
    /// the claim is abandoned and a redelivery is granted at once. At least once, deduplicated. What
    /// `work` has the claim keep ([`ClaimGuard::keep`]) answers the duplicates.
    ///
    /// # Errors
    /// [`ProcessError::Work`] with the handler's own error, [`ProcessError::Claim`] when the handler
    /// was not called. A failed commit is no error but [`Outcome::Uncommitted`]: the work was done.
    ///
    /// # Panics
    /// When `work` does; the panic goes on after the claim was abandoned.
    pub fn process_once<T, E>(
        &self,
        key: impl AsRef<[u8]>,
        work: impl FnOnce(&ClaimGuard) -> Result<T, E>,
    ) -> Result<Outcome<T>, ProcessError<E>> {
        claim::process_once(self.claim(key), work)
    }

    /// [`Scope::process_once`] with options for its claim.
    ///
    /// # Errors
    /// Those of [`Scope::process_once`], and [`ProcessError::Conflict`] when the key was committed by a
    /// message with another fingerprint.
    ///
    /// # Panics
    /// As [`Scope::process_once`].
    pub fn process_once_with<T, E>(
        &self,
        key: impl AsRef<[u8]>,
        options: ClaimOptions,
        work: impl FnOnce(&ClaimGuard) -> Result<T, E>,
    ) -> Result<Outcome<T>, ProcessError<E>> {
        claim::process_once(self.claim_with(key, options), work)
    }

    /// The result that was kept when `key` was committed ([`ClaimGuard::commit_with`],
    /// [`ClaimGuard::keep`]); `None` where none was, or the key is not live. With an authority, what is
    /// not known here is asked for.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where it is damaged: the key is a duplicate all the same.
    /// [`crate::Error::Io`], [`crate::Error::Closed`]; with an authority [`crate::Error::Authority`].
    pub fn result(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.engine().result(self.digest(key), self.manner.on_outage)
    }

    /// Which tier and slice hold `key`, since when, and the state of its claim. Looks into every
    /// live slice; not for the hot loop. With an authority it tells what is known here.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Corrupt`], [`crate::Error::Closed`].
    pub fn explain(&self, key: impl AsRef<[u8]>) -> Result<Explanation> {
        let explained = self.engine().explain(self.digest(key));
        explained.map(|explained| Explanation { shadow: self.manner.shadow, ..explained })
    }
}
