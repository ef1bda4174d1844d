//! The one error type of the crate.

use std::path::PathBuf;
use std::time::Duration;

use crate::time::Timestamp;

/// What a call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. The message says what to do; [`Error::is_transient`] tells
/// "retry the message later" from "stop and look"; [`std::error::Error::source`] has the cause.
///
/// An `Err` never marks a key: asking again gives the answer that the first call should have given. The
/// one exception is [`Error::Undecided`], of stores with an authority: the key may be marked there, and
/// asking again gives that answer to this store alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or another handle of this process, has the store open.
    #[error(
        "the store is open elsewhere (process {pid}): stop that owner, or wait for it with `lock_wait`"
    )]
    Locked {
        /// Process id of the owner, 0 when it could not be read.
        pid: u32,
    },
    /// `max_keys` live keys are held: nothing was marked.
    #[error(
        "the store holds its hard limit of {max_keys} live keys: raise `max_keys` or shorten the window"
    )]
    Full {
        /// The limit that was reached.
        max_keys: u64,
    },
    /// A file does not hold what its checksum or its header promises.
    #[error("{} is damaged ({detail}): run `onceonly verify` on its directory", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The store was created with another setting that can never change.
    #[error(
        "the store was created with another {field} ({detail}): open it with that one, or start a new directory"
    )]
    Mismatch {
        /// The setting that differs.
        field: &'static str,
        /// What the store has.
        detail: String,
    },
    /// The directory was written by a release that this one cannot read.
    #[error(
        "the store has format version {found}, this release reads up to {supported}: use a newer release"
    )]
    Version {
        /// Version found on disk.
        found: u32,
        /// Newest version that this release reads.
        supported: u32,
    },
    /// The directory holds other things and no store.
    #[error("{} is not a store: name an empty or new directory", dir.display())]
    NotAStore {
        /// The directory that was named.
        dir: PathBuf,
    },
    /// The process that created the store died before it was done: it holds no keys yet, and its
    /// settings are not known.
    #[error(
        "{} is a store that was not created to the end: open it with its window, which ends that", dir.display()
    )]
    Unfinished {
        /// The directory that was named.
        dir: PathBuf,
    },
    /// The directory is on a file system where a store is not safe.
    #[error(
        "{} is on {name}, {reason}; name a directory on a local ext4 or XFS, or take the risk with `allow_any_filesystem(true)` (`--any-filesystem`)", dir.display()
    )]
    Filesystem {
        /// The directory that was named.
        dir: PathBuf,
        /// The kind of file system.
        name: &'static str,
        /// Why it is refused.
        reason: String,
    },
    /// A setting is missing or absurd.
    #[error("setting `{field}`: {reason}")]
    Config {
        /// The builder's setter.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The call belongs to the other time mode.
    #[error("{call} needs a store opened with `event_time({needs_event_time})`")]
    Mode {
        /// The call that was refused.
        call: &'static str,
        /// The setting it needs.
        needs_event_time: bool,
    },
    /// The operating system refused an operation on a file.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A sync failed, and so did writing the same to a new file: nothing can be marked until the
    /// disk takes a new file again. Nothing was marked; the next call tries it.
    #[error(
        "the disk does not take what was to be synced ({detail}): check the disk; calls go on when it does, or close the store and open it again"
    )]
    Poisoned {
        /// The first failure.
        detail: String,
    },
    /// The handle was opened by the process that this one was forked from, and works there alone.
    /// Nothing was written, and the lock is still that process's.
    #[error(
        "the store was opened before this process was forked: open stores after forking, each in one process"
    )]
    Forked,
    /// The store was closed.
    #[error("the store is closed: open it again")]
    Closed,
    /// The key is claimed and being processed.
    #[error("the key is being processed, its lease has {lease_left:?} left: retry after that")]
    InFlight {
        /// Time until the claim may be taken over.
        lease_left: Duration,
    },
    /// The claim was taken over, forgotten, or ended by a restart.
    #[error("the claim is no longer ours (token {token}): its work may be done by another owner")]
    LeaseLost {
        /// The fencing token of the lost claim.
        token: u64,
    },
    /// The authority did not answer, and `OnOutage::Fail` says that nothing is assumed: nothing was
    /// marked.
    #[error("{name} did not decide: the message is retried later, or look at the cause")]
    Authority {
        /// What the authority calls itself.
        name: String,
        /// Asking again may succeed without anybody's help.
        transient: bool,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another owner holds the space of an authority, and its lease runs: the store was not opened. Only one
    /// store at a time may have a space with `Ownership::Exclusive`.
    #[error(
        "another owner holds the space at {name}, its lease has {lease_left:?} left: close that store, or wait for it with `lock_wait`"
    )]
    NotExclusive {
        /// What the authority calls itself.
        name: String,
        /// Time until the space may be taken over, if that owner is not heard of again.
        lease_left: Duration,
    },
    /// Another owner has taken the space over since this store was last heard of at the authority: what it
    /// would answer may be wrong, so it answers nothing any more.
    #[error(
        "another owner has taken the space at {name} over: stop working on its keys, and close this store"
    )]
    OwnershipLost {
        /// What the authority calls itself.
        name: String,
    },
    /// The authority was asked, no reply came, and it may have marked the key all the same. Until this
    /// store asks for the key again, others may be told that it is a duplicate; this store then gets
    /// the answer that was lost, also after a restart, if this error had been returned before.
    #[error(
        "no reply came from {name}, so it is not known whether the key was marked: ask again, with this store"
    )]
    Undecided {
        /// What the authority calls itself.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A timestamp is further ahead of the clock than `max_event_lead`.
    #[error(
        "timestamp {timestamp} is more than {max_lead:?} ahead of the clock: check the producer, or raise `max_event_lead`"
    )]
    TimestampAhead {
        /// The refused timestamp.
        timestamp: Timestamp,
        /// The limit.
        max_lead: Duration,
    },
}

impl Error {
    /// True when asking again later may succeed without anybody's help (return the message to the
    /// queue); false when a person or a restart has to act.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Locked { .. }
            | Error::Full { .. }
            | Error::InFlight { .. }
            | Error::NotExclusive { .. }
            | Error::Undecided { .. } => true,
            Error::Authority { transient, .. } => *transient,
            Error::Io { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::Interrupted
                    | std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::QuotaExceeded
                    | std::io::ErrorKind::OutOfMemory
            ),
            _ => false,
        }
    }

    /// The same error for one more caller.
    pub(crate) fn again(&self) -> Self {
        match self {
            Error::Closed => Error::Closed,
            Error::Forked => Error::Forked,
            Error::Io { action, path, source } => Error::io(action, path, source.kind()),
            Error::Poisoned { detail } => Error::Poisoned { detail: detail.clone() },
            other => Error::Poisoned { detail: other.to_string() },
        }
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<std::io::Error>,
    ) -> Self {
        Error::Io { action, path: path.into(), source: source.into() }
    }

    pub(crate) fn corrupt(file: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Error::Corrupt { file: file.into(), detail: detail.into() }
    }

    pub(crate) fn config(field: &'static str, reason: impl Into<String>) -> Self {
        Error::Config { field, reason: reason.into() }
    }
}
