//! The answers to "seen before?".

use std::fmt;

use crate::error::Error;

/// The answer to "seen before?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a verdict that nobody reads drops or repeats a message"]
pub enum Verdict {
    /// Not seen within the window; it is marked now.
    New,
    /// Seen within the window.
    Duplicate,
    /// Event time only: older than the window, so nothing is known; it is not marked.
    TooOld,
}

/// The answer to [`crate::Scope::observe_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "an answer that nobody reads drops or repeats a message"]
#[non_exhaustive]
pub enum Seen {
    /// Not seen within the window; it is marked now, and its fingerprint kept.
    New,
    /// Seen within the window, with this fingerprint or with none that is known.
    Duplicate,
    /// Seen within the window with another fingerprint: another message under the same key. Nothing was
    /// marked.
    Conflict,
}

/// A batch that was not decided as a whole.
#[derive(Debug)]
pub struct BatchError {
    verdicts: Vec<Option<Verdict>>,
    error: Error,
}

impl BatchError {
    pub(crate) fn new(verdicts: Vec<Option<Verdict>>, error: Error) -> Self {
        BatchError { verdicts, error }
    }

    pub(crate) fn verdicts(&self) -> &[Option<Verdict>] {
        &self.verdicts
    }

    /// The cause.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What was decided before the failure, one entry a key (`None`: not decided, not marked
    /// unless the cause is [`Error::Undecided`]), and the cause.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Option<Verdict>>, Error) {
        (self.verdicts, self.error)
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decided = self.verdicts.iter().flatten().count();
        write!(f, "{decided} of {} keys of the batch were decided", self.verdicts.len())
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
