//! PostgreSQL as the [authority](onceonly::authority) of onceonly stores: several processes, on any
//! machines, see the same keys, and the server decides who was first.
//!
//! **Not yet stable**, as the trait is not.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use onceonly::{Dedup, Ownership, Verdict};
//! use onceonly_postgres::PostgresAuthority;
//!
//! # fn secret() -> [u8; 32] { [7; 32] }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = PostgresAuthority::builder("postgres://app:password@db.internal/orders").build()?;
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
//! - PostgreSQL 13 or later (tested with 15), a database, and a user who may make a schema in it;
//!   or the tables made by somebody else ([`migrations`], [`Builder::migrates`]) and a user who may
//!   `SELECT`, `INSERT`, `UPDATE` and `DELETE`.
//! - A connection to the server itself or through a pooler in session mode: settings of the session
//!   are used, and prepared statements.
//! - The primary. With several hosts and `target_session_attrs=read-write` the client finds the one
//!   that takes writes.
//! - No TLS in this release: use a private network or a tunnel. `sslmode=require` is refused.
//!
//! # The mark in your own transaction
//!
//! [`onceonly::ClaimGuard::commit_statement`] with [`Dialect::Postgres`] is one statement for any
//! client, in the transaction of the work. Its names have their schema. The user needs `USAGE` of the
//! schema, `SELECT` and `UPDATE` on `rows` and `SELECT` on `spaces`. Claim before the transaction
//! begins: an older snapshot has no claim. `examples/inbox_sqlx.rs` is a whole program.
//!
//! # What is in the schema
//!
//! The schema `onceonly` ([`Builder::schema`]) with the tables `meta`, `spaces`, `rows`,
//! `forgotten`, `owners` and `chunks`; [`migrations`] has them with comments, and other programs
//! may read them. Rows that are over are deleted by a thread of each process, a thousand at a time.
//! Chunks are in partitions of one hour, made by clients that own the table, and dropped when
//! everything in them is over; what has no partition is in `chunks_other`, and deleted row by row.
//!
//! # Time, deadlines, and what a server may lose
//!
//! - Time is `clock_timestamp()` of the server.
//! - The server is told to give up a little before the caller does (`statement_timeout`), so most
//!   calls that take too long are known not to be applied. A server that says nothing is left at
//!   the deadline, with its connection. For that the client is polled, on a runtime of its own in
//!   the calling thread; the blocking client of the same authors waits for as long as it takes.
//! - Each step is one statement and one transaction under `READ COMMITTED`, for all rows of a call
//!   together. Deadlocks and failed serializations are tried again within the deadline.
//! - `synchronous_commit` is `on` for these sessions where it is `off`. After a failover, a restore
//!   to a point in time, or tables that were made anew from a dump, `guaranteed_since` of the
//!   stores says from when on they know everything: the timeline, the system identifier and the
//!   table's number tell. A server without `fsync`, or one that does not say which it is, counts as
//!   new after each start. Whoever restores rows into the same tables adds `UPDATE onceonly.meta
//!   SET generation = generation + 1`. With asynchronous replicas a failover loses what was not
//!   replicated: name them in `synchronous_standby_names` if that matters.

mod asks;
mod builder;
mod chunks;
mod error;
mod owner;
mod partitions;
mod rows;
mod schema;
mod server;
mod session;
mod space;
mod statement;
mod statements;
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
use partitions::Partitions;
use server::PostgresServer;

/// How often the server is tidied up.
const TIDYING: Duration = Duration::from_secs(5);

/// A server that decides about keys for several processes. See the [crate](self).
///
/// Give all stores of a process one of them, in an `Arc`: then what they ask goes in one round
/// trip.
#[derive(Debug)]
pub struct PostgresAuthority {
    name: String,
    shared: Arc<Shared>,
    /// Begins when the first space is opened.
    tidier: OnceLock<Option<Tidier>>,
}

#[derive(Debug)]
struct Shared {
    server: PostgresServer,
    partitions: Partitions,
}

impl PostgresAuthority {
    /// Settings for a server: `postgres://user:password@host:5432/database`, or
    /// `host=… user=… dbname=…`, in the form that libpq reads. Several hosts are tried in turn.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(crate) fn new(builder: Builder) -> Self {
        let (name, partitions) = (builder.name(), Partitions::default());
        let shared = Shared { server: PostgresServer::new(builder), partitions };
        PostgresAuthority { name, shared: Arc::new(shared), tidier: OnceLock::new() }
    }

    fn tidy_up(&self) {
        self.tidier.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            // What fails is tried again; without a thread another process does it.
            let batch = move || tidy::batch(&shared.server, &shared.partitions).unwrap_or(false);
            Tidier::start("onceonly-tidy", TIDYING, batch).ok()
        });
    }
}

/// The statements that make the schema and its tables, for those who keep migrations of their own
/// ([`Builder::migrates`]).
#[must_use]
pub fn migrations(schema: &str) -> String {
    let name = schema::quoted(schema);
    format!(
        "CREATE SCHEMA IF NOT EXISTS {name};\nSET search_path = {name};\n\n{}",
        schema::MIGRATIONS
    )
}

impl Authority for PostgresAuthority {
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
        let Shared { server, partitions } = &*self.shared;
        chunks::append(server, partitions, appends, deadline)
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
        statement::of(row, dialect, &self.shared.server.builder.schema)
    }
}
