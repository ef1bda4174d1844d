//! The public handles: [`Dedup`] for a store, [`Scope`] for one namespace of it.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::claim::{self, Claim, ClaimGuard, ClaimOptions, CommitError, Outcome, ProcessError};
use crate::config::{Builder, OnOutage};
use crate::digest::{Digest, KeyHasher};
use crate::engine::{self, Engine};
use crate::error::Result;
use crate::explain::Explanation;
use crate::offline;
use crate::stats::{ClaimInfo, Stats, WarmUp};
use crate::time::Timestamp;
use crate::verdict::{BatchError, Seen, Verdict};

/// An open store. A handle: cheap to clone, shared by any number of threads, no call needs `&mut`.
/// It is the root [`Scope`], whose calls it has by `Deref`.
///
/// Dropping the last handle (scopes included) closes the store.
#[derive(Clone)]
pub struct Dedup {
    root: Scope,
}

/// The calls of a store for one namespace: a topic, a consumer group, a tenant. Equal keys of two
/// scopes are different keys. Cheap to clone, and as fast as the root.
#[derive(Clone)]
pub struct Scope {
    handle: Arc<Handle>,
    hasher: Arc<KeyHasher>,
    on_outage: OnOutage,
}

/// Closes the store when the last handle goes.
struct Handle {
    engine: Arc<Engine>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // An error here is written to the store and shows in the next open's recovery report.
        let _ = self.engine.close();
    }
}

impl fmt::Debug for Dedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedup").finish_non_exhaustive()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

impl Deref for Dedup {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.root
    }
}

impl Dedup {
    /// Settings for a store; [`Builder::open`] and [`Builder::in_memory`] open it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_engine(engine: Arc<Engine>) -> Self {
        let hasher = Arc::new(engine.root_hasher());
        let on_outage = engine.on_outage();
        Dedup { root: Scope { handle: Arc::new(Handle { engine }), hasher, on_outage } }
    }

    /// The calls of this store for the namespace `name`. The root differs from `scope("")`.
    #[must_use]
    pub fn scope(&self, name: impl AsRef<[u8]>) -> Scope {
        let hasher = Arc::new(self.engine().scope_hasher(name.as_ref()));
        Scope { hasher, ..self.root.clone() }
    }

    /// The least instant `G` such that `New` proves that no observation was acknowledged in
    /// `[G, now]`: the end of the newest hole, or `now - window`. Event time in event-time stores.
    #[must_use]
    pub fn guaranteed_since(&self) -> Timestamp {
        self.engine().guaranteed_since()
    }

    /// Counters, sizes and coverage. Takes each shard's lock in turn; not for the hot loop.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }

    /// The claims in flight of all scopes, those of a crashed owner included.
    ///
    /// # Errors
    /// [`crate::Error::Closed`].
    pub fn claims(&self) -> Result<Vec<ClaimInfo>> {
        self.engine().claims()
    }

    /// The claims whose lease has run out or whose owner is known dead, each taken over with a new
    /// token and the store's lease, ready to be driven on ([`ClaimGuard::commit`]) or undone
    /// ([`ClaimGuard::abandon`]). [`ClaimOptions::note`] tells what they were about. With an authority
    /// it decides: those whose lease runs there still, and those that others took over, are not among
    /// them, nor are claims of other stores.
    ///
    /// # Errors
    /// [`crate::Error::Closed`], [`crate::Error::Io`]; claims taken over before an error are
    /// abandoned again.
    pub fn expired_claims(&self) -> Result<Vec<ClaimGuard>> {
        claim::expired(self.engine())
    }

    /// Commits many claims; the answers are in the order of the guards. Each failed one brings its
    /// guard back.
    #[must_use = "each commit may have failed"]
    pub fn commit_batch(
        &self,
        guards: impl IntoIterator<Item = ClaimGuard>,
    ) -> Vec<std::result::Result<(), CommitError>> {
        claim::commit_batch(guards)
    }

    /// Loads what owners before this store have written to the authority (`Ownership::Exclusive`), so that
    /// no key has to be asked for any more; `progress` hears how far it has come. Other calls go on
    /// meanwhile. Without it each part of the space is read when its first unknown key comes. A store
    /// that knows everything already, or has no such authority, is done at once.
    ///
    /// # Errors
    /// [`crate::Error::Authority`], whatever `on_outage` says: what was loaded stays, and the next call
    /// goes on there. [`crate::Error::Full`], [`crate::Error::Io`], [`crate::Error::Closed`],
    /// [`crate::Error::OwnershipLost`].
    pub fn warm_up(&self, progress: impl FnMut(WarmUp)) -> Result<()> {
        self.engine().warm_up(progress)
    }

    /// Writes everything acknowledged so far to the disk, so that it survives power loss.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Poisoned`] when the disk refuses; each call tries
    /// again, with a new file. [`crate::Error::Closed`].
    pub fn sync(&self) -> Result<()> {
        self.engine().sync()
    }

    /// Closes the store and releases its lock, even while handles live (their calls are then
    /// [`crate::Error::Closed`]). Closing again does nothing.
    ///
    /// # Errors
    /// [`crate::Error::Io`]: the store is closed all the same, and the next open's recovery report
    /// shows the error. Nothing acknowledged is lost by it. With `Ownership::Exclusive`
    /// [`crate::Error::Authority`] when the authority does not have everything: this directory has it, and
    /// the next owner with another one has a hole.
    pub fn close(&self) -> Result<()> {
        self.engine().close()
    }

    /// Waits until the background work that is due (sealing, merging, rebuilding) is done. For
    /// benchmarks and tests; nothing depends on it.
    #[doc(hidden)]
    pub fn settle(&self) {
        self.engine().settle();
    }
}

/// From settings to an open store.
impl Builder {
    /// Opens the store in directory `dir`, which is created if it does not exist.
    ///
    /// Takes well under a second at any size: filter and sets are mapped, not rebuilt. When shards,
    /// window, slices or size have changed, the filter is rebuilt in the background, and answers are
    /// exact meanwhile.
    ///
    /// # Errors
    /// [`crate::Error::Config`], [`crate::Error::Locked`], [`crate::Error::Mismatch`],
    /// [`crate::Error::Version`], [`crate::Error::NotAStore`],
    /// [`crate::Error::Filesystem`], [`crate::Error::Corrupt`], [`crate::Error::Io`]. With an authority
    /// [`crate::Error::Authority`] when it cannot be asked, unless keys are assumed to be new then; with
    /// `Ownership::Exclusive` in any case, and [`crate::Error::NotExclusive`].
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Dedup> {
        let config = self.settings.validate()?;
        engine::open_dir(config, dir.as_ref()).map(Dedup::from_engine)
    }

    /// The settings with which the store in `dir` was last opened, save those that concern the owner
    /// alone: durability, `lock_wait` and the clock have their defaults. Digest and secret are the
    /// store's own in any case. Setters called afterwards change them. The authority of a store that
    /// shares a space is not among them: name it anew, else opening is [`crate::Error::Mismatch`].
    ///
    /// # Errors
    /// [`crate::Error::NotAStore`] when there is none, [`crate::Error::Unfinished`] when its creation
    /// was interrupted; [`crate::Error::Version`], [`crate::Error::Corrupt`], [`crate::Error::Io`].
    pub fn stored(dir: impl AsRef<Path>) -> Result<Builder> {
        offline::stored_settings(dir.as_ref()).map(|settings| Builder { settings })
    }

    /// Opens a store on a simulated disk.
    ///
    /// # Errors
    /// Those of [`Builder::open`].
    #[cfg(feature = "test-storage")]
    #[doc(hidden)]
    pub fn open_simulated(self, disk: &crate::sim::SimDisk) -> Result<Dedup> {
        engine::open_simulated(self.settings.validate()?, disk).map(Dedup::from_engine)
    }

    /// Opens a store as if the machine had been booted anew.
    ///
    /// # Errors
    /// Those of [`Builder::open`].
    #[cfg(feature = "test-storage")]
    #[doc(hidden)]
    pub fn open_on_boot(self, dir: impl AsRef<Path>, boot: [u8; 16]) -> Result<Dedup> {
        let config = self.settings.validate()?;
        engine::open_dir_on_boot(config, dir.as_ref(), boot).map(Dedup::from_engine)
    }

    /// Opens a store that keeps nothing on disk; everything else is the same.
    ///
    /// # Errors
    /// [`crate::Error::Config`], [`crate::Error::Io`] when memory is refused. With an authority
    /// [`crate::Error::Authority`] and [`crate::Error::Mismatch`], as in [`Builder::open`].
    pub fn in_memory(self) -> Result<Dedup> {
        let config = self.settings.validate()?;
        engine::open_in_memory(config).map(Dedup::from_engine)
    }
}

impl Scope {
    fn engine(&self) -> &Arc<Engine> {
        &self.handle.engine
    }

    /// The same scope with another policy for what is answered while the authority cannot be asked. On
    /// a store without an authority it changes nothing.
    ///
    /// A guard has the policy of the scope that granted it.
    #[must_use]
    pub fn on_outage(&self, policy: OnOutage) -> Scope {
        Scope { on_outage: policy, ..self.clone() }
    }

    #[inline]
    fn digest(&self, key: impl AsRef<[u8]>) -> Digest {
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
        self.engine().observe(self.digest(key), self.on_outage)
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
        self.engine().observe_with(self.digest(key), fingerprint, self.on_outage)
    }

    /// [`Scope::observe`] at `time`, in stores opened with `event_time(true)`: late but within the
    /// window goes to its own slice, older is `TooOld`.
    ///
    /// # Errors
    /// Those of [`Scope::observe`], and [`crate::Error::TimestampAhead`].
    pub fn observe_at(&self, key: impl AsRef<[u8]>, time: impl Into<Timestamp>) -> Result<Verdict> {
        self.engine().observe_at(self.digest(key), time.into())
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
        self.engine().observe_batch(digests, verdicts, self.on_outage)
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
        self.engine().observe_batch_at(digests)
    }

    /// Whether the key is live. Does not mark it. A claimed key is not live yet.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Corrupt`], [`crate::Error::Closed`]. With an authority
    /// [`crate::Error::Authority`], and [`crate::Error::Undecided`] while nobody knows whether a call
    /// without a reply has marked the key: observe or claim it.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine().contains(self.digest(key), self.on_outage)
    }

    /// [`Scope::contains`] for many keys, memory latency hidden.
    ///
    /// # Errors
    /// Those of [`Scope::contains`].
    pub fn contains_batch<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<bool>> {
        let digests = keys.iter().map(|key| self.hasher.digest(key.as_ref()));
        self.engine().contains_batch(digests, self.on_outage)
    }

    /// A hint that `key` is observed soon: fetches its cache line. Call it before the work on the
    /// previous message.
    pub fn prefetch(&self, key: impl AsRef<[u8]>) {
        self.engine().prefetch(self.digest(key));
    }

    /// Makes the next observe of `key` answer `New`; true if the key was live. A claim on the key is
    /// revoked (its commit is refused). Synced before it returns. With an authority the stores of other
    /// processes notice within [`Builder::forget_lag`].
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Poisoned`], [`crate::Error::Corrupt`],
    /// [`crate::Error::Closed`]. With an authority [`crate::Error::Authority`], also where no reply came
    /// and it may be forgotten all the same: forget it again.
    pub fn forget(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine().forget(self.digest(key))
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
        claim::claim_now(self.engine(), self.digest(key), self.on_outage)
    }

    /// [`Scope::claim`] with a lease, a note or a fingerprint of its own.
    ///
    /// # Errors
    /// Those of [`Scope::claim`], and [`crate::Error::Config`] for a note that is too long.
    pub fn claim_with(&self, key: impl AsRef<[u8]>, options: ClaimOptions) -> Result<Claim> {
        let digest = self.digest(key);
        claim::claim(self.engine(), &self.hasher, digest, None, &options, self.on_outage)
    }

    /// [`Scope::claim`] at `time`, in stores opened with `event_time(true)`; a commit records the
    /// key in the slice of `time`.
    ///
    /// # Errors
    /// Those of [`Scope::claim`] and [`crate::Error::TimestampAhead`].
    pub fn claim_at(&self, key: impl AsRef<[u8]>, time: impl Into<Timestamp>) -> Result<Claim> {
        let (digest, options) = (self.digest(key), ClaimOptions::default());
        let time = Some(time.into());
        claim::claim(self.engine(), &self.hasher, digest, time, &options, self.on_outage)
    }

    /// [`Scope::claim`], waiting until `deadline` while another owner works on the key. Never
    /// answers `InFlight` before the deadline.
    ///
    /// # Errors
    /// Those of [`Scope::claim`].
    pub fn claim_wait(&self, key: impl AsRef<[u8]>, deadline: Instant) -> Result<Claim> {
        claim::claim_wait(self.engine(), self.digest(key), deadline, self.on_outage)
    }

    /// [`Scope::claim`] for many keys; a repeated key in the batch is `InFlight`.
    ///
    /// # Errors
    /// Those of [`Scope::claim`]; claims granted before the error are abandoned again.
    pub fn claim_batch<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Claim>> {
        claim::claim_batch(
            self.engine(),
            keys.iter().map(|key| self.hasher.digest(key.as_ref())),
            &ClaimOptions::default(),
            self.on_outage,
        )
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
        claim::process_once(claim::claim_now(self.engine(), self.digest(key), self.on_outage), work)
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
        self.engine().result(self.digest(key), self.on_outage)
    }

    /// Which tier and slice hold `key`, since when, and the state of its claim. Looks into every
    /// live slice; not for the hot loop. With an authority it tells what is known here.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Corrupt`], [`crate::Error::Closed`].
    pub fn explain(&self, key: impl AsRef<[u8]>) -> Result<Explanation> {
        self.engine().explain(self.digest(key))
    }
}
