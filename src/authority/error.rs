//! What can go wrong at an authority.

use std::time::Duration;

/// An error of the client that was used, whatever its type.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why an authority did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Nothing was applied, and asking again may succeed: there is no connection, the server is
    /// starting, a transaction was rolled back for another's sake.
    #[error("the server cannot be reached: asked again later")]
    Transient(#[source] Source),
    /// Sent, and no reply came: it may have been applied or not, or will be. The engine asks again with
    /// the same tokens and numbers.
    #[error("no reply came, so it is not known whether the server did it: asked again")]
    Undecided(#[source] Source),
    /// The server refuses, and will go on to: a wrong password, a missing right, a table that is of
    /// another release. Nothing was applied.
    #[error("the server refuses: have its administrator look at the cause")]
    Refused(#[source] Source),
    /// The epoch is not that of the owner record: another owner has taken over. Nothing was applied.
    #[error("epoch {epoch} is over: another owner has taken the space over")]
    StaleEpoch {
        /// The epoch that was refused.
        epoch: u64,
    },
    /// Another owner holds the space, and its lease runs.
    #[error("another owner holds the space, its lease has {lease_left:?} left")]
    NotExclusive {
        /// Time until the space may be taken over.
        lease_left: Duration,
    },
    /// The server may throw live data away to make room, so it cannot vouch for any key.
    #[error("the server may evict live keys ({detail}): set it to refuse writes instead")]
    Evicting {
        /// Which setting says so.
        detail: String,
    },
}

impl AuthorityError {
    /// Nothing was applied; asking again may succeed.
    pub fn transient(source: impl Into<Source>) -> Self {
        AuthorityError::Transient(source.into())
    }

    /// It may have been applied.
    pub fn undecided(source: impl Into<Source>) -> Self {
        AuthorityError::Undecided(source.into())
    }

    /// Nothing was applied, and asking again is of no use.
    pub fn refused(source: impl Into<Source>) -> Self {
        AuthorityError::Refused(source.into())
    }

    /// True when asking again later may succeed without anybody's help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            AuthorityError::Transient(_)
            | AuthorityError::Undecided(_)
            | AuthorityError::NotExclusive { .. } => true,
            AuthorityError::Refused(_)
            | AuthorityError::StaleEpoch { .. }
            | AuthorityError::Evicting { .. } => false,
        }
    }
}
