//! What claims and `process_once` answer.

use std::fmt;
use std::time::Duration;

use super::ClaimGuard;
use crate::error::Error;

/// The answer to `claim`.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropping a granted claim abandons it"]
pub enum Claim {
    /// The key is ours until the lease runs out: work, then [`ClaimGuard::commit`].
    Granted(ClaimGuard),
    /// Another owner works on it.
    #[non_exhaustive]
    InFlight {
        /// Time until the claim may be taken over.
        lease_left: Duration,
    },
    /// Committed within the window.
    #[non_exhaustive]
    Duplicate {
        /// What [`ClaimGuard::commit_with`] or [`ClaimGuard::keep`] kept. `None` also where that is
        /// damaged: [`crate::Scope::result`] tells.
        result: Option<Vec<u8>>,
    },
    /// Committed within the window by a message with another fingerprint
    /// ([`super::ClaimOptions::fingerprint`]): another message under the same key.
    #[non_exhaustive]
    Conflict {},
    /// Event time only: older than the window; nothing is known and nothing was claimed.
    TooOld,
}

/// What `process_once` did.
#[derive(Debug)]
#[must_use = "an outcome says whether to acknowledge the message"]
pub enum Outcome<T> {
    /// The work was done and the key is marked.
    Done(T),
    /// The work had been done before; the handler was not called.
    #[non_exhaustive]
    Duplicate {
        /// What [`ClaimGuard::keep`] kept. `None` also where that is damaged: [`crate::Scope::result`]
        /// tells.
        result: Option<Vec<u8>>,
    },
    /// Another owner works on it; the handler was not called.
    #[non_exhaustive]
    InFlight {
        /// Time until the claim may be taken over.
        lease_left: Duration,
    },
    /// The work was done, the mark was not: the message may be delivered and worked on again.
    Uncommitted {
        /// What the handler returned.
        value: T,
        /// Why the key is not marked.
        error: Error,
    },
}

/// Why `process_once` did not finish the work.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProcessError<E> {
    /// The handler failed; the claim is abandoned, so a redelivery is granted at once.
    Work(E),
    /// The claim could not be made; the handler was not called.
    Claim(Error),
    /// The key was committed by a message with another fingerprint; the handler was not called.
    Conflict,
}

impl<E: fmt::Display> fmt::Display for ProcessError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessError::Work(_) => f.write_str("the handler failed; the key is not marked"),
            ProcessError::Claim(_) => f.write_str("the claim failed; the handler was not called"),
            ProcessError::Conflict => f.write_str(
                "another message had the same key: refuse this one, or give it a key of its own",
            ),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ProcessError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProcessError::Work(error) => Some(error),
            ProcessError::Claim(error) => Some(error),
            ProcessError::Conflict => None,
        }
    }
}

/// A commit that did not happen. Nothing was marked, save perhaps at an authority whose reply was lost
/// ([`Error::Undecided`]); the guard comes back, so that the commit can be tried again or the claim
/// abandoned, which takes such a mark back.
#[derive(Debug)]
pub struct CommitError {
    guard: Box<ClaimGuard>,
    error: Error,
}

impl CommitError {
    pub(super) fn new(guard: ClaimGuard, error: Error) -> Self {
        CommitError { guard: Box::new(guard), error }
    }

    /// The cause.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The guard and the cause. The guard's commit was attempted, so dropping it does not abandon;
    /// call [`ClaimGuard::abandon`] for that.
    pub fn into_parts(self) -> (ClaimGuard, Error) {
        (*self.guard, self.error)
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key is not marked as done")
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
