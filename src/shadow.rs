//! Shadow mode: a store decides and counts, and lets every message through.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::Error;
use crate::stats::ShadowStats;

/// What a store in shadow mode would have said of a claim that it let through
/// ([`crate::ClaimGuard::shadowed`]).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Shadowed {
    /// Committed within the window.
    Duplicate,
    /// Older than the window.
    TooOld,
    /// Committed by a message with another fingerprint.
    Conflict,
    /// Another owner works on it.
    #[non_exhaustive]
    InFlight {
        /// Time until the claim may be taken over.
        lease_left: Duration,
    },
    /// Nothing: the call failed.
    Failed(Arc<Error>),
}

impl Shadowed {
    pub(crate) fn of(error: Error) -> Self {
        match error {
            Error::InFlight { lease_left } => Shadowed::InFlight { lease_left },
            error => Shadowed::Failed(Arc::new(error)),
        }
    }
}

/// Whether an error says that the call is wrong, not that the store could not answer it: whoever rolls a
/// store out has to hear of that at once.
pub(crate) fn is_misuse(error: &Error) -> bool {
    matches!(error, Error::Config { .. } | Error::Mode { .. } | Error::Closed | Error::Forked)
}

/// Counts what was let through.
#[derive(Default)]
pub(crate) struct LetThrough {
    duplicate: AtomicU64,
    too_old: AtomicU64,
    conflict: AtomicU64,
    in_flight: AtomicU64,
    failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl LetThrough {
    pub(crate) fn count(&self, would_be: &Shadowed) {
        let counter = match would_be {
            Shadowed::Duplicate => &self.duplicate,
            Shadowed::TooOld => &self.too_old,
            Shadowed::Conflict => &self.conflict,
            Shadowed::InFlight { .. } => &self.in_flight,
            Shadowed::Failed(error) => {
                *self.last_error.lock() = Some(error.to_string());
                &self.failed
            }
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_error(&self, error: &Error) {
        let counter = match error {
            Error::InFlight { .. } => &self.in_flight,
            error => {
                *self.last_error.lock() = Some(error.to_string());
                &self.failed
            }
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self) -> ShadowStats {
        ShadowStats {
            duplicate: self.duplicate.load(Relaxed),
            too_old: self.too_old.load(Relaxed),
            conflict: self.conflict.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            failed: self.failed.load(Relaxed),
            last_error: self.last_error.lock().clone(),
        }
    }
}
