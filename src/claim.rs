//! Claims: a key taken for processing, with a lease and a fencing token, then committed or abandoned.

mod ghost;
mod inbox;
mod later;
mod outcome;
mod together;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::authority::Dialect;
use crate::config::OnOutage;
use crate::digest::{Digest, KeyHasher};
use crate::engine::{Engine, Grant, Held, Wish};
use crate::error::{Error, Result};
use crate::format::kept::MAX_RESULT;
use crate::shadow::Shadowed;
use crate::time::{Timestamp, nanos};

pub use inbox::{CommitStatement, InTransaction};
pub(crate) use later::{claim_later, process_later};
pub use outcome::{Claim, CommitError, Outcome, ProcessError};
pub(crate) use together::{claim_batch, commit_batch};

/// How the calls of a scope are answered.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) on_outage: OnOutage,
    /// Everything is let through.
    pub(crate) shadow: bool,
    /// Keys of before may have to be asked for.
    pub(crate) legacy: bool,
}

impl Manner {
    /// What the engine says is what is answered.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        !self.shadow && !self.legacy
    }

    /// As the store was opened.
    pub(crate) fn of(engine: &Engine) -> Self {
        let (on_outage, shadow) = (engine.on_outage(), engine.is_shadow());
        Manner { on_outage, shadow, legacy: engine.may_ask_legacy() }
    }
}

/// The longest note that a claim may carry.
const MAX_NOTE_LEN: usize = 2048;
const _: () = assert!(MAX_NOTE_LEN <= crate::format::record::MAX_PAYLOAD);

/// Options of one claim.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClaimOptions {
    pub(crate) lease: Option<Duration>,
    pub(crate) note: Option<Vec<u8>>,
    pub(crate) fingerprint: Option<Vec<u8>>,
}

impl ClaimOptions {
    /// The store's lease, no note.
    #[must_use]
    pub fn new() -> Self {
        ClaimOptions::default()
    }

    /// A lease other than the store's.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Bytes that are journaled with the claim and come back from [`crate::Dedup::claims`] and
    /// [`crate::Dedup::expired_claims`], also after a crash: the key, or how far the work had come.
    /// At most 2,048 bytes.
    #[must_use]
    pub fn note(mut self, note: impl Into<Vec<u8>>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// What tells this message from others under the same key: its payload, or a hash of it. The store keeps
    /// 128 bits of it, digested under its secret, with the mark; a later claim of the key with another one
    /// is [`Claim::Conflict`], not a duplicate. A key that was marked without one is a duplicate for all.
    /// While the key is claimed, it is [`Claim::InFlight`] for all. It is not journaled before the commit:
    /// a claim that is taken over after a restart commits without.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: impl Into<Vec<u8>>) -> Self {
        self.fingerprint = Some(fingerprint.into());
        self
    }
}

/// The right to process one key until its lease runs out. Dropping it abandons the claim, unless a
/// commit was attempted.
#[must_use = "dropping a guard abandons its claim"]
pub struct ClaimGuard {
    engine: Arc<Engine>,
    held: Held,
    /// What the user knows the token by.
    public_token: u64,
    /// Failures are counted, and keep nobody from going on.
    shadow: bool,
    /// Nothing is held: why the message is let through all the same.
    ghost: Option<Box<Shadowed>>,
    /// The drop has nothing to do: committed, abandoned, or a commit was attempted.
    settled: AtomicBool,
}

impl fmt::Debug for ClaimGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimGuard").field("token", &self.public_token).finish_non_exhaustive()
    }
}

impl ClaimGuard {
    fn new(engine: &Arc<Engine>, grant: &Grant, manner: Manner) -> Self {
        let Manner { on_outage, shadow, .. } = manner;
        ClaimGuard {
            engine: Arc::clone(engine),
            held: Held { digest: grant.digest, token: grant.token, on_outage },
            public_token: grant.public_token,
            shadow,
            ghost: None,
            settled: AtomicBool::new(false),
        }
    }

    /// Fencing token: higher than that of every earlier claim of this store, across restarts. Give
    /// it to the systems that the work writes to, so that they can refuse a late owner.
    ///
    /// With an authority it is the authority's: higher than that of every earlier claim of this key,
    /// by any store. A claim that was granted in an outage ([`OnOutage::AssumeNew`]) has one of this
    /// store, which is lower than the authority's.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.public_token
    }

    /// An error that names this guard's token as its owner knows it.
    fn own(&self, error: Error) -> Error {
        match error {
            Error::LeaseLost { .. } => Error::LeaseLost { token: self.public_token },
            other => other,
        }
    }

    /// The note of this claim, empty if none.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the claim is no longer ours, [`Error::Closed`].
    pub fn note(&self) -> Result<Vec<u8>> {
        if self.is_ghost() {
            return Ok(Vec::new());
        }
        let note = self.engine.claim_note(self.held.digest, self.held.token);
        self.or_let_through(note, Vec::new())
    }

    /// Has the commit keep `result`, at most 64 KiB, for as long as the key is remembered: whoever comes
    /// with the key again gets it, in [`Claim::Duplicate`], [`Outcome::Duplicate`] or by
    /// [`crate::Scope::result`]. Nothing is written before the commit; a later call replaces it. For the
    /// work of [`crate::Scope::process_once`], and for guards that are committed together.
    ///
    /// # Errors
    /// [`Error::Config`] when it is longer, [`Error::LeaseLost`] when the claim is no longer ours,
    /// [`Error::Closed`].
    pub fn keep(&self, result: impl AsRef<[u8]>) -> Result<()> {
        let result = result.as_ref();
        if result.len() > MAX_RESULT {
            let reason = format!("of {} bytes is longer than {MAX_RESULT}", result.len());
            return Err(Error::config("result", reason));
        }
        if self.is_ghost() {
            return Ok(());
        }
        self.or_let_through(self.engine.keep(self.held, result), ())
    }

    /// [`ClaimGuard::keep`], then [`ClaimGuard::commit`].
    ///
    /// ```
    /// # use onceonly::{Claim, Dedup};
    /// # let dedup = Dedup::builder().window(std::time::Duration::from_secs(60)).in_memory()?;
    /// if let Claim::Granted(guard) = dedup.claim("payment-7")? {
    ///     guard.commit_with("receipt 1001")?;
    /// }
    /// match dedup.claim("payment-7")? {
    ///     Claim::Duplicate { result, .. } => assert_eq!(result.unwrap(), b"receipt 1001"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of both. After an error nothing is marked, and nothing kept.
    pub fn commit_with(self, result: impl AsRef<[u8]>) -> std::result::Result<(), CommitError> {
        match self.keep(result) {
            Ok(()) => self.commit(),
            // Not attempted: dropping the guard abandons.
            Err(error) => Err(CommitError::new(self, error)),
        }
    }

    /// Starts the lease anew, from now.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the claim was taken over or its key forgotten; [`Error::Io`],
    /// [`Error::Closed`]. With an authority [`Error::Authority`] and [`Error::Undecided`].
    pub fn renew(&self) -> Result<()> {
        if self.is_ghost() {
            return Ok(());
        }
        self.or_let_through(self.engine.renew(self.held), ())
    }

    /// Marks the key as done: it answers `Duplicate` for the window, from now; in event time, from
    /// the timestamp of its claim, also where that was taken over or made before a restart. When that
    /// has left the window meanwhile, the claim ends and nothing is marked: who comes again with the
    /// timestamp is told `TooOld`.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the claim was taken over or its key forgotten (a lease that ran out
    /// but was not taken over is still good); [`Error::Full`], [`Error::Io`], [`Error::Closed`]. With an
    /// authority [`Error::Authority`], and [`Error::Undecided`] where no reply came: commit again, or
    /// abandon, which takes back what may be marked.
    pub fn commit(self) -> std::result::Result<(), CommitError> {
        if self.is_ghost() {
            return Ok(());
        }
        self.settled.store(true, Ordering::Relaxed);
        match self.engine.commit(self.held) {
            Ok(()) => Ok(()),
            Err(error) => self.not_committed(error),
        }
    }

    /// The commit as a statement for a transaction of the user's own, in the database that is the store's
    /// authority: run it with any client beside the statements of the work, tell what it changed by
    /// [`CommitStatement::applied`], and [`InTransaction::confirm`] it after the transaction was
    /// committed. The key is marked exactly if the transaction was: a rolled-back one leaves no
    /// `Duplicate`.
    ///
    /// # Errors
    /// [`Error::Config`] where the authority is no database with that dialect, or there is none;
    /// [`Error::LeaseLost`], [`Error::Closed`]; [`Error::Authority`] for a claim that was granted in an
    /// outage and has no row: commit it as usual.
    pub fn commit_statement(
        self,
        dialect: Dialect,
    ) -> std::result::Result<CommitStatement, CommitError> {
        self.settled.store(true, Ordering::Relaxed);
        match self.statement(dialect) {
            Ok(statement) => Ok(CommitStatement::new(self, statement)),
            Err(error) => {
                let error = self.own(error);
                Err(CommitError::new(self, error))
            }
        }
    }

    /// Gives the key back: the next claim is granted at once.
    pub fn abandon(self) {
        if self.is_ghost() {
            return;
        }
        self.settled.store(true, Ordering::Relaxed);
        self.engine.abandon(self.held.digest, self.held.token);
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        if !*self.settled.get_mut() {
            self.engine.abandon(self.held.digest, self.held.token);
        }
    }
}

fn into_claim(engine: &Arc<Engine>, attempt: Attempt, manner: Manner) -> Claim {
    match attempt {
        Attempt::Granted(grant) => Claim::Granted(ClaimGuard::new(engine, &grant, manner)),
        Attempt::InFlight { lease_left } => Claim::InFlight { lease_left },
        Attempt::Duplicate(kept) => Claim::Duplicate { result: kept.and_then(|kept| kept.result) },
        Attempt::Conflict => Claim::Conflict {},
        Attempt::TooOld => Claim::TooOld,
    }
}

pub(crate) use crate::engine::Attempt;

fn lease_ns(options: &ClaimOptions) -> Result<Option<i64>> {
    if options.note.as_ref().is_some_and(|note| note.len() > MAX_NOTE_LEN) {
        return Err(Error::config("note", format!("is longer than {MAX_NOTE_LEN} bytes")));
    }
    match options.lease {
        Some(lease) if lease.is_zero() || nanos(lease) > i64::MAX / 4 => {
            Err(Error::config("lease", format!("{lease:?} is not a useful lease")))
        }
        lease => Ok(lease.map(nanos)),
    }
}

/// A claim with the store's lease and no note.
pub(crate) fn claim_now(engine: &Arc<Engine>, digest: Digest, manner: Manner) -> Result<Claim> {
    let attempt = engine.claim(digest, None, Wish::default(), manner.on_outage);
    answer(engine, digest, attempt, manner)
}

#[inline]
fn answer(
    engine: &Arc<Engine>,
    digest: Digest,
    attempt: Result<Attempt>,
    manner: Manner,
) -> Result<Claim> {
    match attempt {
        Ok(attempt) if !manner.shadow => Ok(into_claim(engine, attempt, manner)),
        Err(error) if !manner.shadow => Err(error),
        said => manner.shadow_claim(
            engine,
            digest,
            said.map(|attempt| into_claim(engine, attempt, manner)),
        ),
    }
}

pub(crate) fn claim(
    engine: &Arc<Engine>,
    hasher: &KeyHasher,
    digest: Digest,
    time: Option<Timestamp>,
    options: &ClaimOptions,
    manner: Manner,
) -> Result<Claim> {
    let wish = Wish {
        lease_ns: lease_ns(options)?,
        note: options.note.as_deref().unwrap_or_default(),
        fingerprint: options.fingerprint.as_deref().map(|bytes| fingerprint(hasher, bytes)),
    };
    let attempt = engine.claim(digest, time, wish, manner.on_outage);
    answer(engine, digest, attempt, manner)
}

/// What is kept of a fingerprint: who knows it, but not the secret of the store, cannot tell.
pub(crate) fn fingerprint(hasher: &KeyHasher, bytes: &[u8]) -> Digest {
    hasher.digest(bytes)
}

/// How often a waiter looks at a claim that is not given back: the end of a claim wakes it at once, but
/// nobody tells it that a lease has run out.
const WAIT_POLL: Duration = Duration::from_millis(50);

pub(crate) fn claim_wait(
    engine: &Arc<Engine>,
    digest: Digest,
    deadline: Instant,
    manner: Manner,
) -> Result<Claim> {
    if manner.shadow {
        return claim_now(engine, digest, manner);
    }
    let waiter = engine.waiter()?;
    loop {
        let epoch = waiter.epoch();
        let attempt = engine.claim(digest, None, Wish::default(), manner.on_outage)?;
        let Attempt::InFlight { lease_left } = attempt else {
            return Ok(into_claim(engine, attempt, manner));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Claim::InFlight { lease_left });
        }
        waiter.wait(epoch, left.min(WAIT_POLL));
    }
}

pub(crate) fn expired(engine: &Arc<Engine>) -> Result<Vec<ClaimGuard>> {
    let mut guards = Vec::new();
    engine.take_over_expired(|grant| {
        guards.push(ClaimGuard::new(engine, &grant, Manner::of(engine)))
    })?;
    Ok(guards)
}

pub(crate) fn process_once<T, E>(
    claimed: Result<Claim>,
    work: impl FnOnce(&ClaimGuard) -> Result<T, E>,
) -> Result<Outcome<T>, ProcessError<E>> {
    let guard = match granted(claimed) {
        Ok(guard) => guard,
        Err(outcome) => return outcome,
    };
    // The guard outlives the closure, so a panic is caught only to abandon before it goes on.
    match catch_unwind(AssertUnwindSafe(|| work(&guard))) {
        Ok(Ok(value)) => match guard.commit() {
            Ok(()) => Ok(Outcome::Done(value)),
            Err(failed) => {
                let (guard, error) = failed.into_parts();
                drop(guard);
                Ok(Outcome::Uncommitted { value, error })
            }
        },
        Ok(Err(error)) => {
            guard.abandon();
            Err(ProcessError::Work(error))
        }
        Err(panic) => {
            guard.abandon();
            resume_unwind(panic)
        }
    }
}

/// The guard of a claim, or what is answered without the work.
fn granted<T, E>(
    claimed: Result<Claim>,
) -> std::result::Result<ClaimGuard, Result<Outcome<T>, ProcessError<E>>> {
    Err(match claimed {
        Ok(Claim::Granted(guard)) => return Ok(guard),
        Ok(Claim::InFlight { lease_left }) => Ok(Outcome::InFlight { lease_left }),
        Ok(Claim::Duplicate { result }) => Ok(Outcome::Duplicate { result }),
        Ok(Claim::TooOld) => Ok(Outcome::Duplicate { result: None }),
        Ok(Claim::Conflict {}) => Err(ProcessError::Conflict),
        Err(error) => Err(ProcessError::Claim(error)),
    })
}
