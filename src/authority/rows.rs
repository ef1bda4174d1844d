//! Rows: what an authority keeps of each digest under `Shared`.

use std::time::Duration;

use super::{Digest, Result, Server, Token};

/// One step of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The space of the row.
    pub space: &'a str,
    /// The digest of the row.
    pub digest: Digest,
    /// What to do.
    pub op: RowOp<'a>,
}

/// What to do with a row.
///
/// A row is in one of three states. `now` is the server's clock:
///
/// - *absent*: there is none, or it is over;
/// - *marked* by a token, since `seen`, over at `expires`;
/// - *claimed* by a token, with a fence, until `lease_until`. It stays, for a late commit, until
///   `expires`; while `now >= lease_until` others may take it.
///
/// A row in the state `claimed` whose lease is over counts as absent for `Look`, `Observe` and `Claim`.
/// Times are kept to a millisecond or better; where they are rounded, a row lives longer, not shorter.
///
/// Values are opaque bytes, mostly empty, at most 64 KiB and 256 bytes. They stay with the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowOp<'a> {
    /// Only tells: [`RowAnswer::Absent`], [`RowAnswer::Duplicate`] or [`RowAnswer::InFlight`].
    Look,
    /// Marks an absent row with `seen = now`, `expires = now + keep`: [`RowAnswer::Marked`].
    ///
    /// A row that is marked with the same token is [`RowAnswer::Marked`] too, and stays as it is: the
    /// reply of an earlier attempt was lost. Else as `Look`.
    Observe {
        /// Names this observation.
        token: Token,
        /// How long the mark is kept.
        keep: Duration,
        /// Kept with the mark.
        value: &'a [u8],
    },
    /// A marked row gets `seen = now`, `expires = now + keep`: [`RowAnswer::Refreshed`]. Else
    /// [`RowAnswer::Absent`].
    Refresh {
        /// How long the mark is kept from now on.
        keep: Duration,
    },
    /// Claims an absent row with `lease_until = now + lease`, `expires = lease_until + keep`:
    /// [`RowAnswer::Granted`].
    ///
    /// A row that is claimed with the same token (the reply was lost) or with `previous` (its owner is
    /// known to be dead) is granted too, the lease begins anew; with the same token the fence stays.
    /// Else as `Look`.
    ///
    /// The fence is greater than that of every claim of this digest before: the greater of the
    /// server's clock in microseconds and the fence of the row plus one.
    Claim {
        /// Names this claim.
        token: Token,
        /// A claim whose owner is known to be dead.
        previous: Option<Token>,
        /// How long nobody else may have it.
        lease: Duration,
        /// How long it stays after the lease, so that a late commit finds it.
        keep: Duration,
        /// Kept with the claim, and with the mark that it becomes.
        value: &'a [u8],
    },
    /// A row that is claimed with the token, its lease over or not, gets
    /// `lease_until = now + lease`, `expires = lease_until + keep`: [`RowAnswer::Renewed`]. Else
    /// [`RowAnswer::Lost`].
    Renew {
        /// The claim.
        token: Token,
        /// The new lease.
        lease: Duration,
        /// How long it stays after the lease.
        keep: Duration,
    },
    /// A row that is claimed with the token, its lease over or not, is marked, with `seen = now`,
    /// `expires = now + keep`: [`RowAnswer::Committed`]. So is, and stays as it is, a row that was
    /// marked by a commit with the token before. Else [`RowAnswer::Lost`].
    Commit {
        /// The claim.
        token: Token,
        /// How long the mark is kept.
        keep: Duration,
        /// Replaces the value of the claim; if it is empty, the claim's stays.
        value: &'a [u8],
    },
    /// Deletes a row that is claimed or marked with the token. [`RowAnswer::Abandoned`] in any case.
    Abandon {
        /// The claim or observation.
        token: Token,
    },
    /// Deletes the row whatever its state, then adds the digest to the forget log of the space, row or
    /// not: [`RowAnswer::Forgotten`]. An answer means that both are done; a repetition may add it
    /// again. In this order: who hears of the entry and asks must not find the row.
    ///
    /// Entries become visible in the order of their numbers. A sequence of a database does not give
    /// that by itself: of two transactions the one with the higher number may end first.
    Forget {
        /// How long the log keeps the entry, at least.
        keep: Duration,
    },
}

/// The kinds of [`RowOp`], to sort rows by what statement they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is that of `RowOp`")]
pub enum RowKind {
    Look,
    Observe,
    Refresh,
    Claim,
    Renew,
    Commit,
    Abandon,
    Forget,
}

impl RowKind {
    /// All kinds.
    pub const ALL: [RowKind; 8] = [
        RowKind::Look,
        RowKind::Observe,
        RowKind::Refresh,
        RowKind::Claim,
        RowKind::Renew,
        RowKind::Commit,
        RowKind::Abandon,
        RowKind::Forget,
    ];
}

impl RowOp<'_> {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> RowKind {
        match self {
            RowOp::Look => RowKind::Look,
            RowOp::Observe { .. } => RowKind::Observe,
            RowOp::Refresh { .. } => RowKind::Refresh,
            RowOp::Claim { .. } => RowKind::Claim,
            RowOp::Renew { .. } => RowKind::Renew,
            RowOp::Commit { .. } => RowKind::Commit,
            RowOp::Abandon { .. } => RowKind::Abandon,
            RowOp::Forget { .. } => RowKind::Forget,
        }
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowAnswer {
    /// There is no live row.
    Absent,
    /// It is marked, by us.
    Marked,
    /// It had been marked.
    Duplicate {
        /// The server's clock less `seen`; not negative.
        age: Duration,
        /// The value of the row.
        value: Vec<u8>,
    },
    /// It is claimed, and the lease runs.
    InFlight {
        /// Time until another may take it.
        lease_left: Duration,
        /// The value of the row.
        value: Vec<u8>,
    },
    /// It is claimed, by us.
    Granted {
        /// Grows from claim to claim of one digest.
        fence: u64,
    },
    /// The mark lives on from now.
    Refreshed,
    /// The lease begins anew.
    Renewed,
    /// The claim is a mark.
    Committed,
    /// The claim is not there any more, or another's.
    Lost,
    /// It is not ours any more, if it was.
    Abandoned,
    /// It is gone.
    Forgotten {
        /// It was marked.
        live: bool,
    },
}

/// The answer to [`super::Authority::rows`].
#[derive(Debug)]
pub struct Answers {
    /// The server.
    pub server: Server,
    /// One a row, in their order.
    pub rows: Vec<Result<RowAnswer>>,
}

/// The answer to [`super::Authority::forgotten`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The server.
    pub server: Server,
    /// What was forgotten after the number that was asked for, oldest first.
    pub digests: Vec<Digest>,
    /// The number of the last of them; the number that was asked for, if there is none; a smaller one
    /// if the log does not reach up to that (it was lost).
    pub through: u64,
}
