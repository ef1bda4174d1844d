//! MySQL or MariaDB as the [authority](onceonly::authority) of onceonly stores: several processes,
//! on any machines, see the same keys, and the server decides who was first.
//!
//! **Not yet stable**, as the trait is not.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use onceonly::{Dedup, Ownership, Verdict};
//! use onceonly_mysql::MysqlAuthority;
//!
//! # fn secret() -> [u8; 32] { [7; 32] }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = MysqlAuthority::builder("mysql://app:password@db.internal/orders").build()?;
//! let orders = Dedup::builder()
//!     .window(Duration::from_secs(3600))
//!     .authority(Arc::new(server), Ownership::Shared)
//!     .authority_space("orders") // the same in all processes
//!     .authority_deadline(Duration::from_millis(500)) // of each round trip
//!     .secret(secret()) // the same too
//!     .open("state/orders-consumer-a")?;
//! if orders.observe("order-1001")? == Verdict::New {
//!     // Nobody has seen it within the hour.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it needs
//!
//! - MariaDB 10.6 or later (tested with 10.11), or MySQL 8 (not tested in this release), with
//!   InnoDB, and row-based or mixed binary logs if there are any.
//! - A database, and a user who may `SELECT`, `INSERT`, `UPDATE`, `DELETE`, `CREATE`, `DROP` and
//!   `LOCK TABLES` in it. The last three are for tables of chunks, which stores that share their
//!   keys do not need when the tables were made by somebody else ([`migrations`],
//!   [`Builder::migrates`]).
//! - A connection to the primary itself, or through a proxy that keeps a session on one server.
//! - The server must not run with `sysdate-is-now`.
//! - No TLS in this release: use a private network or a tunnel. `require_ssl` is refused.
//!
//! # The mark in your own transaction
//!
//! [`onceonly::ClaimGuard::commit_statement`] with [`Dialect::Mysql`] is one statement for any
//! client, in the transaction of the work. It names its database, needs `SELECT` and `UPDATE` on
//! `onceonly_rows`, and changes one row or none whether the session has `CLIENT_FOUND_ROWS` or not, in
//! any time zone and character set. Whoever claims the same key while the transaction is open waits for
//! it, up to his deadline.
//!
//! # What is in the database
//!
//! The tables `onceonly_meta`, `onceonly_spaces`, `onceonly_rows`, `onceonly_forgotten`,
//! `onceonly_owners`, `onceonly_chunks` and `onceonly_boot`; [`migrations`] has them with comments,
//! and other programs may read them. Rows that are over are deleted by a thread of each process, a
//! thousand at a time. Chunks are in tables of one hour each, `onceonly_chunks_<hours since 1970>`,
//! made when they are first needed and dropped when everything in them is over.
//!
//! # Time, deadlines, and what a server may lose
//!
//! - Time is `SYSDATE(6)` of the server, in UTC.
//! - All steps of a call go in one packet, unless they are more than 4 MiB of text or half of
//!   `max_allowed_packet`: a transaction for each kind of step and each space, under `READ
//!   COMMITTED`. Deadlocks are tried again within the deadline.
//! - The server is told to give up a little before the caller does (`max_statement_time` of
//!   MariaDB, `innodb_lock_wait_timeout` in whole seconds of both): then it is known that nothing
//!   was applied. A server that says nothing is left at the deadline, with its connection. For that
//!   the client is polled, on a runtime of its own in the calling thread; the timeouts of the
//!   blocking client are of single reads, not of calls.
//! - After a failover to another server, or when tables were made anew from a dump,
//!   `guaranteed_since` of the stores says from when on they know everything: `server_uuid`
//!   (MariaDB: `server_uid`), `server_id` and the time when the table was made tell, when a
//!   connection is made. So does each start of a server whose `innodb_flush_log_at_trx_commit` is
//!   not 1. Whoever restores rows into the same tables adds `UPDATE onceonly_meta SET generation =
//!   generation + 1`. With asynchronous replicas a failover loses what was not replicated.

mod answers;
mod builder;
mod chunks;
mod error;
mod owner;
mod pieces;
mod rows;
mod schema;
mod script;
mod server;
mod session;
mod space;
mod spans;
mod statement;
mod tidy;

/// The README has an example that compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use onceonly::authority::{
    Acquire, Acquired, Answers, Append, Appended, Authority, Bucket, Dialect, Forgotten, Opened,
    Result, Row, SliceInfo, Statement, StoredChunk, Token,
};
use onceonly_sql_common::Tidier;

pub use builder::Builder;
use server::MysqlServer;
use spans::Spans;

/// How often the server is tidied up.
const TIDYING: Duration = Duration::from_secs(5);

/// A server that decides about keys for several processes. See the [crate](self).
///
/// Give all stores of a process one of them, in an `Arc`: then what they ask goes in one round
/// trip.
#[derive(Debug)]
pub struct MysqlAuthority {
    name: String,
    shared: Arc<Shared>,
    /// Begins when the first space is opened.
    tidier: OnceLock<Option<Tidier>>,
}

#[derive(Debug)]
struct Shared {
    server: MysqlServer,
    spans: Spans,
}

impl MysqlAuthority {
    /// Settings for a server: `mysql://user:password@host:3306/database`.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(crate) fn new(builder: Builder) -> Self {
        let (name, spans) = (builder.name(), Spans::default());
        let shared = Shared { server: MysqlServer::new(builder), spans };
        MysqlAuthority { name, shared: Arc::new(shared), tidier: OnceLock::new() }
    }

    fn tidy_up(&self) {
        self.tidier.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            // What fails is tried again; without a thread another process does it.
            let batch = move || tidy::batch(&shared.server, &shared.spans).unwrap_or(false);
            Tidier::start("onceonly-tidy", TIDYING, batch).ok()
        });
    }
}

/// The statements that make the tables, for those who keep migrations of their own
/// ([`Builder::migrates`]).
#[must_use]
pub fn migrations() -> &'static str {
    schema::MIGRATIONS
}

impl Authority for MysqlAuthority {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened> {
        let opened = space::open(&self.shared.server, space, check, deadline)?;
        self.tidy_up();
        Ok(opened)
    }

    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
        rows::rows(&self.shared.server, rows, deadline)
    }

    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten> {
        space::forgotten(&self.shared.server, space, after, deadline)
    }

    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired> {
        owner::acquire(&self.shared.server, space, request, deadline)
    }

    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>> {
        chunks::append(&self.shared.server, &self.shared.spans, appends, deadline)
    }

    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Result<()> {
        owner::release(&self.shared.server, space, (epoch, holder), deadline)
    }

    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>> {
        chunks::slices(&self.shared.server, space, deadline)
    }

    fn read(
        &self,
        space: &str,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<Vec<StoredChunk>>> {
        chunks::read(&self.shared.server, space, buckets, deadline)
    }

    fn statement(&self, row: &Row<'_>, dialect: Dialect) -> Option<Statement> {
        statement::of(row, dialect, self.shared.server.builder.database())
    }
}
