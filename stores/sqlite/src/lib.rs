//! SQLite as the [authority](onceonly::authority) of onceonly stores: several processes of one
//! machine see the same keys, and the file decides who was first. No server to run.
//!
//! **Not yet stable**, as the trait is not.
//!
//! ```
//! use std::time::Duration;
//!
//! use onceonly::{Dedup, Ownership, Verdict};
//! use onceonly_sqlite::SqliteAuthority;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let file = dir.path().join("seen.db");
//! let store = || {
//!     Dedup::builder()
//!         .window(Duration::from_secs(3600))
//!         .authority(SqliteAuthority::open(&file)?, Ownership::Shared)
//!         .authority_space("orders") // the same in all processes
//!         .secret([7; 32]) // too
//!         .in_memory()
//!         .map_err(Box::<dyn std::error::Error>::from)
//! };
//! let (here, elsewhere) = (store()?, store()?);
//! assert_eq!(here.observe("order-1001")?, Verdict::New);
//! assert_eq!(elsewhere.observe("order-1001")?, Verdict::Duplicate);
//! # Ok(())
//! # }
//! ```
//!
//! # What it needs
//!
//! - A file on a local file system: SQLite's write-ahead log shares memory between processes, which
//!   network file systems do not. The file, its `-wal` and its `-shm` belong together.
//! - One machine. The server's clock is its wall clock, the same for all processes.
//! - Nothing installed: SQLite is compiled in. A graph of crates can have one `libsqlite3-sys`.
//!
//! SQLite has one writer at a time, in all processes together. A call waits for its turn, up to its
//! deadline; a process that is stopped while it writes holds up the others until it goes on or
//! dies. A disk that hangs in a sync holds up the call that waits for it, past its deadline:
//! nothing can interrupt that.
//!
//! # The mark in your own transaction
//!
//! [`onceonly::ClaimGuard::commit_statement`] with [`Dialect::Sqlite`] is one statement for another
//! connection whose main database is this file, in the transaction of the work. Claim before it
//! begins: while it is open nobody else can write, this store neither. `examples/inbox_rusqlite.rs`
//! is a whole program.
//!
//! # What is in the file
//!
//! The tables `onceonly_meta`, `onceonly_spaces`, `onceonly_rows`, `onceonly_forgotten`,
//! `onceonly_owners` and `onceonly_chunks`; [`migrations`] has them with comments, and other
//! programs may read them. The file may be one that an application uses for other things as well.
//!
//! Rows that are over are deleted by calls that write, at most twice as many as they write, and so
//! are chunks: the file does not shrink, its pages are used again.
//!
//! # Restoring it
//!
//! Stop the processes, move the file, its `-wal` and its `-shm` away, and copy the backup to where
//! it was. The stores know the new file by its inode and the time it was made, and say in
//! `guaranteed_since` that something may be missing. Whoever writes the backup *into* the old file
//! adds `UPDATE onceonly_meta SET generation = random()`.

mod builder;
mod chunks;
mod connection;
mod error;
mod file;
mod owner;
mod rows;
mod schema;
mod space;
mod statement;
mod tidy;

/// The README has an example that compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use std::fmt;
use std::path::Path;
use std::time::Instant;

use onceonly::authority::{
    Acquire, Acquired, Answers, Append, Appended, Authority, Bucket, Dialect, Forgotten, Opened,
    Result, Row, RowOp, SliceInfo, Statement, StoredChunk, Token,
};

pub use builder::Builder;
use connection::Database;

/// A file that decides about keys for the processes of one machine. See the [crate](self).
///
/// Give all stores of a process one of them, in an `Arc`: then what they ask goes in one
/// transaction.
pub struct SqliteAuthority {
    database: Database,
}

impl SqliteAuthority {
    /// Opens the file, or makes it, with the settings that a [`Builder`] begins with.
    ///
    /// # Errors
    /// Those of [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        SqliteAuthority::builder(path).open()
    }

    /// Settings for a file.
    #[must_use]
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }
}

/// The statements that make the tables, for those who keep migrations of their own
/// ([`Builder::migrates`]).
#[must_use]
pub fn migrations() -> &'static str {
    schema::MIGRATIONS
}

impl fmt::Debug for SqliteAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteAuthority").field("path", &self.database.builder.path).finish()
    }
}

impl Authority for SqliteAuthority {
    fn name(&self) -> String {
        format!("SQLite in {}", self.database.builder.path.display())
    }

    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened> {
        self.database.write(deadline, |call| space::open(call, space, check))
    }

    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
        if rows.iter().all(|row| matches!(row.op, RowOp::Look)) {
            self.database.read(deadline, |call| rows::look(call, rows))
        } else {
            self.database.write(deadline, |call| rows::step(call, rows))
        }
    }

    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten> {
        self.database.read(deadline, |call| space::forgotten(call, space, after))
    }

    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired> {
        self.database.write(deadline, |call| owner::acquire(call, space, request))
    }

    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>> {
        self.database.write(deadline, |call| chunks::append(call, appends))
    }

    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Result<()> {
        self.database.write(deadline, |call| owner::release(call, space, epoch, holder))
    }

    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>> {
        self.database.read(deadline, |call| chunks::slices(call, space))
    }

    fn read(
        &self,
        space: &str,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<Vec<StoredChunk>>> {
        self.database.read(deadline, |call| chunks::read(call, space, buckets))
    }

    fn statement(&self, row: &Row<'_>, dialect: Dialect) -> Option<Statement> {
        statement::of(row, dialect)
    }
}
