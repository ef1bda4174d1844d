//! `Ownership::Shared`: several processes may see a key, and the authority decides.
//!
//! What is known here is a cache of the authority's marks: a key that is live here is a duplicate, any
//! other is asked for. So whatever goes wrong here costs a call, never an answer.

mod claims;
mod decide;
mod drive;
mod inbox;
mod kept;
mod later;
mod news;

pub(crate) use claims::Held;
pub(super) use claims::attempt;
pub(super) use decide::{Said, assemble, first_occurrences, verdict};

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::Engine;
use crate::authority::{AuthorityError, Token};
use crate::config::{Config, OnOutage, Shared as Settings};
use crate::digest::{Digest, KeyHasher};
use crate::error::{Error, Result};
use crate::format::header::StoreHeader;
use crate::gather::{Failure, Link, Step, Terms};
use crate::random;
use crate::stats::AuthorityStats;
use crate::sync::{AtomicI64, AtomicU64, Mutex};
use crate::time::nanos;

/// A store's side of an authority.
pub(super) struct Shared {
    link: Link,
    /// Upper half of all tokens of this open: a copy of the store has others.
    nonce: u64,
    next_observation: AtomicU64,
    /// How long the authority keeps a mark: the window, and what may pass until its answer is here.
    keep: Duration,
    slack_ns: i64,
    /// How long its log keeps what was forgotten: as long as any store may hold what it saw before.
    forget_keep: Duration,
    pub(super) on_outage: OnOutage,
    deadline: Duration,
    /// The authority has every mark since then, in time of the store; [`NOT_KNOWN`] while it does not
    /// tell.
    pub(super) complete_since_ns: AtomicI64,
    /// Until when the manifest has a hole because of what is assumed.
    hole_until_ns: Mutex<i64>,
    /// What this store has forgotten, and when, in time of the store: a server that lost the news of it is
    /// told again.
    forgotten: Mutex<VecDeque<(i64, Digest)>>,
    answered_here: AtomicU64,
    assumed_new: AtomicU64,
    not_kept: AtomicU64,
}

pub(super) const NOT_KNOWN: i64 = i64::MAX;
/// Tokens of observations; those of claims are smaller.
const OBSERVATION: u64 = 1 << 63;

impl Shared {
    fn new(config: &Config, settings: &Settings, header: &StoreHeader) -> std::io::Result<Self> {
        let mut nonce = [0; 8];
        random::fill(&mut nonce)?;
        let terms = Terms {
            space: settings.space.as_str().into(),
            check: check(header),
            deadline: settings.deadline,
            forget_lag: settings.forget_lag,
            write_every: None,
        };
        // A mark is acknowledged when its answer is here, and lives for a window from then; and not
        // longer than it would here.
        let slack_ns = config.slice_ns / 2;
        Ok(Shared {
            link: Link::new(&settings.authority, terms)?,
            nonce: u64::from_le_bytes(nonce),
            next_observation: AtomicU64::new(OBSERVATION),
            keep: span(config.window_ns + slack_ns),
            slack_ns,
            forget_keep: span(config.window_ns + 2 * config.slice_ns),
            on_outage: settings.on_outage,
            deadline: settings.deadline,
            complete_since_ns: AtomicI64::new(NOT_KNOWN),
            hole_until_ns: Mutex::new(i64::MIN),
            forgotten: Mutex::default(),
            answered_here: AtomicU64::new(0),
            assumed_new: AtomicU64::new(0),
            not_kept: AtomicU64::new(0),
        })
    }

    fn token(&self, number: u64) -> Token {
        Token::from_bytes((u128::from(self.nonce) << 64 | u128::from(number)).to_be_bytes())
    }

    pub(super) fn complete_since_ns(&self) -> i64 {
        self.complete_since_ns.load(Acquire)
    }

    pub(super) fn stats(&self) -> AuthorityStats {
        let mut stats = self.link.stats();
        stats.answered_here = self.answered_here.load(Relaxed);
        stats.assumed_new = self.assumed_new.load(Relaxed);
        stats.not_kept = self.not_kept.load(Relaxed);
        stats
    }

    /// Waits until what dropped guards give back was sent.
    pub(super) fn flush(&self) {
        self.link.flush();
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn hole_until(&self) -> &Mutex<i64> {
        &self.hole_until_ns
    }

    /// Has steps made without waiting for them.
    pub(super) fn post(&self, steps: Vec<Step>) {
        self.link.post(steps);
    }

    pub(super) fn error(&self, failure: &Failure, undecided: bool) -> Error {
        error_of(&self.link, failure, undecided)
    }
}

pub(super) fn span(ns: i64) -> Duration {
    Duration::from_nanos(ns.max(0).unsigned_abs())
}

/// What a caller is told of a failure.
pub(super) fn error_of(link: &Link, failure: &Failure, undecided: bool) -> Error {
    let (name, source) = (link.name(), Box::new(Arc::clone(&failure.error)));
    match undecided {
        true => Error::Undecided { name, source },
        false => Error::Authority { name, transient: failure.error.is_transient(), source },
    }
}

/// Tells stores apart whose digests have nothing to do with each other.
pub(super) fn check(header: &StoreHeader) -> u64 {
    let hasher = KeyHasher::derived(header.digest, &header.secret, b"authority");
    hasher.digest(header.digest.name().as_bytes()).hi
}

impl Engine {
    /// The authority of this store, where calls of this process have one.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Shared> {
        if self.origin.mark() == super::SHARED_TIME {
            self.shared.get().map(|v| &**v)
        } else {
            None
        }
    }

    /// Finds the authority, and agrees with it on the space.
    pub(super) fn connect(&self) -> Result<()> {
        let Some(settings) = &self.config.shared else { return Ok(()) };
        self.agree(settings)?;
        if self.ledger.read(|manifest| manifest.space == settings.space) {
            return Ok(());
        }
        self.ledger.update(|manifest| manifest.space.clone_from(&settings.space))
    }

    fn agree(&self, settings: &Settings) -> Result<()> {
        let path = || self.ledger.storage().path("");
        let shared = Shared::new(&self.config, settings, &self.header)
            .map_err(|e| Error::io("starting a thread for", path(), e))?;
        let shared = self.shared.get_or_init(|| Box::new(shared));
        let me: std::sync::Weak<Engine> = self.me.clone();
        shared.link.watch(me);
        let asked = Instant::now();
        let opened = match shared.link.open() {
            Ok(opened) => opened,
            // It is opened before the first key is asked for.
            Err(failure)
                if shared.on_outage == OnOutage::AssumeNew && failure.error.is_transient() =>
            {
                return Ok(());
            }
            Err(failure) => return Err(shared.error(&failure, false)),
        };
        if opened.check != check(&self.header) {
            let detail = format!(
                "the space `{}` of {} belongs to stores with another secret or digest",
                settings.space,
                shared.link.name()
            );
            return Err(Error::Mismatch { field: "secret", detail });
        }
        if self.recovery.lock().created {
            // Nothing was forgotten that is known here, and the authority's knowledge is older.
            shared.link.knows_forgotten(&opened, asked);
            let since_ns = shared.complete_since_ns();
            return self.ledger.update(|manifest| {
                manifest.complete_since_ns = manifest.complete_since_ns.min(since_ns);
            });
        }
        // What was forgotten while the store was closed. Should this fail, it is read before any
        // duplicate is answered from here.
        let _ = shared.link.poll();
        Ok(())
    }

    /// Notes that a key is assumed to be new, or a mark could not be made known to others.
    fn note_assumed(&self, shared: &Shared) -> Result<()> {
        self.note_assumption(&shared.hole_until_ns)
    }

    /// Counts a `New` that was assumed.
    fn assume_new(&self, shared: &Shared) -> Result<()> {
        self.note_assumed(shared)?;
        shared.assumed_new.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// An answer that no client may give to what it was asked, and that says nothing of what was applied.
fn unfit() -> Failure {
    Failure {
        undecided: true,
        error: Arc::new(AuthorityError::undecided("its client gave an answer that does not fit")),
    }
}

/// The lease of a claim, as the authority counts it.
fn lease(lease_ns: i64) -> Duration {
    debug_assert!(lease_ns <= nanos(Duration::MAX));
    span(lease_ns)
}
