//! `Ownership::Shared`: several processes may see a key, and the authority decides.
//!
//! What is known here is a cache of the authority's marks: a key that is live here is a duplicate, any
//! other is asked for. So whatever goes wrong here costs a call, never an answer.

mod claims;
mod decide;
mod drive;
mod kept;
mod news;

pub(crate) use claims::Held;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use super::Engine;
use crate::authority::{AuthorityError, Opened, Token};
use crate::config::{Config, OnOutage, Shared as Settings};
use crate::digest::{Digest, KeyHasher};
use crate::error::{Error, Result};
use crate::format::header::StoreHeader;
use crate::format::manifest::Hole;
use crate::gather::{Failure, Link, Terms, Watcher};
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
    complete_since_ns: AtomicI64,
    /// Until when the manifest has a hole because of what is assumed.
    hole_until_ns: Mutex<i64>,
    /// What this store has forgotten, and when, in time of the store: a server that lost the news of it is
    /// told again.
    forgotten: Mutex<VecDeque<(i64, Digest)>>,
    answered_here: AtomicU64,
    assumed_new: AtomicU64,
    not_kept: AtomicU64,
}

const NOT_KNOWN: i64 = i64::MAX;
/// Tokens of observations; those of claims are smaller.
const OBSERVATION: u64 = 1 << 63;
/// A hole is written this far ahead, so that not every assumption writes the manifest.
const HOLE_AHEAD_NS: i64 = 5_000_000_000;
const ASSUMED: &str = "the authority could not be asked: keys were assumed to be new";

impl Shared {
    fn new(
        config: &Config,
        settings: &Settings,
        header: &StoreHeader,
        watcher: std::sync::Weak<dyn Watcher>,
    ) -> std::io::Result<Self> {
        let mut nonce = [0; 8];
        random::fill(&mut nonce)?;
        let terms = Terms {
            space: settings.space.as_str().into(),
            check: check(header),
            deadline: settings.deadline,
            forget_lag: settings.forget_lag,
        };
        // A mark is acknowledged when its answer is here, and lives for a window from then; and not
        // longer than it would here.
        let slack_ns = config.slice_ns / 2;
        Ok(Shared {
            link: Link::new(&settings.authority, terms, watcher)?,
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

    fn error(&self, failure: &Failure, undecided: bool) -> Error {
        let name = self.link.name();
        let source = Box::new(Arc::clone(&failure.error));
        match undecided {
            true => Error::Undecided { name, source },
            false => Error::Authority { name, transient: failure.error.is_transient(), source },
        }
    }
}

fn span(ns: i64) -> Duration {
    Duration::from_nanos(ns.max(0).unsigned_abs())
}

/// Tells stores apart whose digests have nothing to do with each other.
fn check(header: &StoreHeader) -> u64 {
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

    /// What is answered while the authority cannot be asked.
    pub(crate) fn on_outage(&self) -> OnOutage {
        self.shared.get().map_or(OnOutage::Fail, |shared| shared.on_outage)
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
        let me: std::sync::Weak<Engine> = self.me.clone();
        let shared = Shared::new(&self.config, settings, &self.header, me)
            .map_err(|e| Error::io("starting a thread for", path(), e))?;
        let shared = self.shared.get_or_init(|| Box::new(shared));
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
        let now_ns = self.time.now();
        let mut until_ns = shared.hole_until_ns.lock();
        if now_ns < *until_ns {
            return Ok(());
        }
        let to_ns = now_ns.saturating_add(HOLE_AHEAD_NS);
        let begun_ns = *until_ns;
        self.ledger.update(|manifest| {
            let is_it = |hole: &&mut Hole| hole.to_ns == begun_ns && hole.reason == ASSUMED;
            let goes_on = now_ns < begun_ns.saturating_add(HOLE_AHEAD_NS);
            match manifest.holes.iter_mut().find(is_it).filter(|_| goes_on) {
                Some(hole) => hole.to_ns = to_ns,
                None => {
                    let (from_ns, reason) = (now_ns, ASSUMED.to_owned());
                    manifest.holes.push(Hole { from_ns, to_ns, reason });
                }
            }
        })?;
        *until_ns = to_ns;
        Ok(())
    }

    /// Counts a `New` that was assumed.
    fn assume_new(&self, shared: &Shared) -> Result<()> {
        self.note_assumed(shared)?;
        shared.assumed_new.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl Watcher for Engine {
    fn forgotten(&self, digests: &[crate::authority::Digest]) -> bool {
        // A store that is closed answers nothing, and reads all of it when it is opened again.
        if self.is_closed() {
            return true;
        }
        let forgotten = self.forget_elsewhere(digests);
        forgotten.inspect_err(|error| self.note_background_error(error)).is_ok()
    }

    fn lost(&self) {
        if let Some(shared) = self.shared() {
            // Until it says since when it knows everything, nothing is vouched for.
            shared.complete_since_ns.store(NOT_KNOWN, Release);
            self.forget_again(shared);
        }
    }

    fn opened(&self, opened: &Opened) {
        let Some(shared) = self.shared() else { return };
        let server_ns = opened.server.time.as_unix_nanos();
        let ago_ns = server_ns.saturating_sub(opened.complete_since.as_unix_nanos()).max(0);
        shared.complete_since_ns.store(self.time.now().saturating_sub(ago_ns), Release);
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
