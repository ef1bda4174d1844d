//! The authority: a server behind the filter, which knows keys beyond this process.
//!
//! **Not yet stable**: this module may change in any release until it says otherwise.
//!
//! An [`Authority`] is what a store asks when it cannot decide alone, and where it writes what others
//! have to know ([`crate::Builder::authority`]). Crates of their own implement it for Redis,
//! PostgreSQL, MySQL and SQLite; this page is for who writes one for a server of his own. The feature
//! `conformance` has a suite that any implementation runs (`authority::conformance`), and an authority
//! in memory whose faults are made by hand (`authority::memory`); read the latter as the reference.
//!
//! # What it keeps
//!
//! Everything belongs to a *space*, a name that a store is opened with. Spaces know nothing of each
//! other. An authority never sees a key, only its 128-bit [`Digest`].
//!
//! | of a space | for | what |
//! |---|---|---|
//! | its check | both | a number that is written once, when the space is first opened |
//! | rows | `Shared` | one a digest: marked or claimed, with the token of who did it |
//! | forget log | `Shared` | which digests were forgotten, numbered |
//! | owner record | `Exclusive` | who may write: an epoch, a lease, and how far it has come |
//! | chunks | `Exclusive` | bytes, found by slice and bucket; written once, never changed |
//!
//! # What holds for all calls
//!
//! - **Time is the server's.** Whether a row, a lease or a chunk is over is decided by the server's
//!   clock when it is asked for. Deleting what is over is only tidying, and may lag behind.
//! - **Acknowledged is applied.** An answer means that every other client sees the change from here on.
//! - **A deadline is kept.** A call returns by its deadline or shortly after. A connection on which a
//!   reply is still due is not used again.
//! - **Calls can be repeated.** The engine sends a request whose reply was lost once more, with the same
//!   token or number; the second answer is the one that was lost.
//! - **Errors say whether it was applied**: see [`AuthorityError`]. When in doubt,
//!   [`AuthorityError::Undecided`].
//! - Calls come from any thread, several at a time. They come from threads of the engine's own, never
//!   from inside a runtime, so they may block.
//!
//! There is one round trip a call, if the server allows it: the engine has gathered what there was to
//! ask from all threads and all stores.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod legacy;
#[cfg(feature = "conformance")]
pub mod memory;
mod packed;
mod rows;
mod statement;
mod types;

use std::sync::Arc;
use std::time::Instant;

pub use error::AuthorityError;
pub use legacy::Legacy;
pub use packed::{
    Acquire, Acquired, Append, Appended, Bucket, Chunk, Progress, SliceInfo, StoredChunk,
};
pub use rows::{Answers, Forgotten, Row, RowAnswer, RowKind, RowOp};
pub use statement::{Dialect, SqlValue, Statement};
pub use types::{Digest, Opened, Server, Token};

/// What a call of an authority returns.
pub type Result<T, E = AuthorityError> = std::result::Result<T, E>;

/// A server that decides about keys for several processes, or keeps them for the next owner. See the
/// [module](self) for what holds for all calls.
pub trait Authority: Send + Sync + 'static {
    /// What messages call it, with its address and without any password: `redis at 10.0.0.7:6379`.
    fn name(&self) -> String;

    /// Connects, makes what is missing (tables, scripts), and registers `space`.
    ///
    /// `check` is written when the space is new, and never changed. The answer has the one that is
    /// there: the engine refuses to go on with another, because the digests of two secrets have
    /// nothing to do with each other.
    ///
    /// # Errors
    /// [`AuthorityError::Evicting`] when the server may throw live data away to make room, unless the
    /// user allowed that; those of any call.
    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened>;

    /// `Shared`: one step of each row's life, each by itself and atomic. [`RowOp`] has the rules.
    ///
    /// Rows come in ascending order of space and digest, each at most once in a call, so that servers
    /// which lock rows do not lock each other out. Answers are in the order of the rows. A row that
    /// could not be answered (a node of a cluster is down) has an error of its own.
    ///
    /// # Errors
    /// Those of any call, for all rows alike.
    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers>;

    /// `Shared`: the entries of the forget log after number `after`, the oldest first. Returns some of
    /// them when there are very many.
    ///
    /// # Errors
    /// Those of any call.
    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten>;

    /// `Exclusive`: makes the caller the owner of the space.
    ///
    /// Granted when there is no owner yet, when the last one released the space or its lease is over,
    /// and when the last one was [`Acquire::previous`], which the caller knows to be dead. Then the
    /// epoch is one higher than ever before, and the lease begins. When [`Acquire::holder`] is the
    /// owner already (the reply was lost) the answer is as before, the lease begins anew.
    ///
    /// # Errors
    /// [`AuthorityError::NotExclusive`] while another owner's lease runs; those of any call.
    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired>;

    /// `Exclusive`: writes chunks, moves the progress on and begins the lease anew, all of that or
    /// nothing, for each of `appends` by itself. Without chunks it only renews.
    ///
    /// A chunk whose number is there already is left as it is. An owner whose lease is over still is
    /// the owner, until another one has acquired the space.
    ///
    /// Answers are in the order of the appends. [`AuthorityError::StaleEpoch`] is the error of an
    /// append whose epoch or holder is not that of the owner record, or whose space has no such record.
    ///
    /// # Errors
    /// Those of any call, for all appends alike.
    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>>;

    /// `Exclusive`: ends the lease of the owner with this epoch and name, and notes that all it had was
    /// written. An owner that acquires or appends once more has not released. Does nothing when the owner
    /// is another one.
    ///
    /// # Errors
    /// Those of any call.
    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Result<()>;

    /// `Exclusive`: the slices that have chunks which are not over, in any order.
    ///
    /// # Errors
    /// Those of any call.
    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>>;

    /// `Exclusive`: the chunks of some buckets that are not over, each bucket's in any order. Answers
    /// are in the order of `buckets`, which are all different.
    ///
    /// # Errors
    /// Those of any call.
    fn read(
        &self,
        space: &str,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<Vec<StoredChunk>>>;

    /// `Shared`: the statement that carries out `row`, a [`RowOp::Commit`], inside a transaction of the
    /// user's own, in the database that this is. It changes one row if the claim is there, or was marked by
    /// the same statement before, else none. `None` if this is no such database; that is the default.
    fn statement(&self, row: &Row<'_>, dialect: Dialect) -> Option<Statement> {
        let _ = (row, dialect);
        None
    }

    /// The keys that something else has marked at this server before a store decided, if there are any: they
    /// are duplicates for a store until its window is complete. `None` is the default.
    fn legacy(&self) -> Option<&dyn Legacy> {
        None
    }

    /// Tells whether two of them are one, so that stores which share it are asked for together.
    #[doc(hidden)]
    fn identity(&self) -> usize {
        std::ptr::from_ref(self).cast::<()>().addr()
    }
}

/// Several stores may share one authority: then what they ask goes in one round trip.
impl<A: Authority + ?Sized> Authority for Arc<A> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened> {
        (**self).open(space, check, deadline)
    }

    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
        (**self).rows(rows, deadline)
    }

    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten> {
        (**self).forgotten(space, after, deadline)
    }

    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired> {
        (**self).acquire(space, request, deadline)
    }

    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>> {
        (**self).append(appends, deadline)
    }

    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Result<()> {
        (**self).release(space, epoch, holder, deadline)
    }

    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>> {
        (**self).slices(space, deadline)
    }

    fn read(
        &self,
        space: &str,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<Vec<StoredChunk>>> {
        (**self).read(space, buckets, deadline)
    }

    fn statement(&self, row: &Row<'_>, dialect: Dialect) -> Option<Statement> {
        (**self).statement(row, dialect)
    }

    fn legacy(&self) -> Option<&dyn Legacy> {
        (**self).legacy()
    }

    fn identity(&self) -> usize {
        (**self).identity()
    }
}

/// A trait object is an authority too, and threads may share it.
const _: fn() = || {
    fn is_authority<A: Authority>() {}
    is_authority::<Arc<dyn Authority>>();
};
