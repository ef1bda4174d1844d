//! The connection: one a process, because SQLite has one writer at a time.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onceonly::authority::{AuthorityError, Result, Server};
use onceonly_sql_common::{remaining, timestamp};
use parking_lot::Mutex;
use rusqlite::{Transaction, TransactionBehavior};

use crate::builder::Builder;
use crate::error::{before_commit, on_commit};
use crate::file::{File, boot};
use crate::schema;

/// Instructions of SQLite's machine between two looks at the clock: about a millisecond.
const INSTRUCTIONS: i32 = 50_000;
/// Statements that are kept prepared: more than there are.
const STATEMENTS: usize = 64;

/// A file, and what this process has of it.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) builder: Builder,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    db: rusqlite::Connection,
    file: File,
    boot: String,
}

/// One call, in its transaction.
pub(crate) struct Call<'a> {
    pub(crate) db: &'a Transaction<'a>,
    pub(crate) server: Server,
    /// The time of the call in microseconds since the Unix epoch.
    pub(crate) now: i64,
}

impl Database {
    /// Opens the file now, to say at once what is wrong with it.
    pub(crate) fn new(builder: Builder, deadline: Instant) -> Result<Self> {
        let connection = Connection::open(&builder, deadline)?;
        Ok(Database { builder, connection: Mutex::new(Some(connection)) })
    }

    /// One call in a transaction that only reads.
    pub(crate) fn read<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Call<'_>) -> Result<T>,
    ) -> Result<T> {
        self.call(TransactionBehavior::Deferred, deadline, work)
    }

    /// One call in a transaction that has the write lock from its begin: what it reads stays so.
    pub(crate) fn write<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&Call<'_>) -> Result<T>,
    ) -> Result<T> {
        self.call(TransactionBehavior::Immediate, deadline, work)
    }

    fn call<T>(
        &self,
        behavior: TransactionBehavior,
        deadline: Instant,
        work: impl FnOnce(&Call<'_>) -> Result<T>,
    ) -> Result<T> {
        remaining(deadline)?;
        let Some(mut kept) = self.connection.try_lock_until(deadline) else {
            return Err(AuthorityError::transient("other calls of this process took all the time"));
        };
        let mut connection = match kept.take() {
            Some(connection) if connection.is_of(&self.builder.path) => connection,
            // The file was replaced: what is written to the old one nobody would find.
            _ => Connection::open(&self.builder, deadline)?,
        };
        connection.keep_deadline(deadline)?;
        let result = connection.call(behavior, work);
        // A connection that is still in its transaction is of no use.
        *kept = Some(connection).filter(|connection| connection.db.is_autocommit());
        result
    }
}

impl Connection {
    fn open(builder: &Builder, deadline: Instant) -> Result<Self> {
        let wait = remaining(deadline)?;
        let mut db = rusqlite::Connection::open(&builder.path).map_err(before_commit)?;
        db.busy_timeout(wait).map_err(before_commit)?;
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::use_wal(&db, deadline)?;
        let synchronous = if builder.survives_power_loss { "FULL" } else { "NORMAL" };
        db.pragma_update(None, "synchronous", synchronous).map_err(before_commit)?;
        if builder.migrates {
            schema::migrate(&mut db)?;
        }
        schema::check(&db)?;
        let file = File::at(&builder.path).map_err(AuthorityError::transient)?;
        let boot = if builder.survives_power_loss { String::new() } else { boot() };
        Ok(Connection { db, file, boot })
    }

    fn is_of(&self, path: &Path) -> bool {
        File::at(path).is_ok_and(|file| file == self.file)
    }

    /// Waits for locks no longer than until then, and interrupts itself.
    fn keep_deadline(&mut self, deadline: Instant) -> Result<()> {
        // A timeout of 0 would not wait at all.
        let wait = remaining(deadline)?.max(Duration::from_millis(1));
        self.db.busy_timeout(wait).map_err(before_commit)?;
        let is_over = move || Instant::now() >= deadline;
        self.db.progress_handler(INSTRUCTIONS, Some(is_over)).map_err(before_commit)
    }

    fn call<T>(
        &mut self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let (file, boot) = (self.file, self.boot.as_str());
        let db = self.db.transaction_with_behavior(behavior).map_err(before_commit)?;
        // Asked for under the lock, so that the times of calls are in the order of the calls.
        let now = now_us();
        let generation = db
            .prepare_cached("SELECT generation FROM onceonly_meta WHERE id = 1")
            .and_then(|mut meta| meta.query_row([], |row| row.get(0)))
            .map_err(before_commit)?;
        let incarnation = file.incarnation(generation, boot);
        let call = Call { db: &db, server: Server { time: timestamp(now), incarnation }, now };
        // Dropping the transaction rolls it back.
        let done = work(&call)?;
        db.commit().map_err(on_commit)?;
        Ok(done)
    }
}

/// The server's clock is that of the machine.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
