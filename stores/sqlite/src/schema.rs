//! The tables, and how they come about.

use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::{AuthorityError, Result};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::error::{before_commit, is_busy, on_commit};

/// Of the tables that this release reads and writes.
const VERSION: i64 = 1;

pub(crate) const MIGRATIONS: &str = include_str!("schema.sql");

/// Asks again this soon for a lock that has no queue.
const AGAIN: Duration = Duration::from_millis(2);

/// Readers do not wait for the writer then, and a commit is one sync. The mode is kept in the file.
pub(crate) fn use_wal(db: &Connection, deadline: Instant) -> Result<()> {
    loop {
        let mode = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let why = format!(
                    "the file cannot have a write-ahead log (its journal is \"{mode}\"): put it on \
                     a local file system"
                );
                return Err(AuthorityError::refused(why));
            }
            // Whoever changes the mode must be alone with the file for a moment.
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(AGAIN),
            Err(error) => return Err(before_commit(error)),
        }
    }
}

/// Makes the tables, unless they are there. Of several processes that come at once one does.
pub(crate) fn migrate(db: &mut Connection) -> Result<()> {
    if version(db)?.is_some() {
        return Ok(());
    }
    let work =
        db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(before_commit)?;
    if version(&work)?.is_some() {
        return Ok(());
    }
    work.execute_batch(MIGRATIONS).map_err(before_commit)?;
    work.commit().map_err(on_commit)
}

/// Refuses a file whose tables are of another release.
pub(crate) fn check(db: &Connection) -> Result<()> {
    match version(db)? {
        Some(VERSION) => Ok(()),
        Some(other) => Err(AuthorityError::refused(format!(
            "its tables are of version {other}, and this release knows version {VERSION}: update \
             onceonly-sqlite in all processes that use the file"
        ))),
        None => Err(AuthorityError::refused(
            "it has no tables: run `onceonly_sqlite::migrations()` on it, or let the builder \
             migrate",
        )),
    }
}

/// `None` when there are no tables.
fn version(db: &Connection) -> Result<Option<i64>> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'onceonly_meta'";
    let there = db.query_row(exists, [], |_| Ok(())).optional().map_err(before_commit)?;
    if there.is_none() {
        return Ok(None);
    }
    let version = "SELECT version FROM onceonly_meta WHERE id = 1";
    db.query_row(version, [], |row| row.get(0)).optional().map_err(before_commit)
}
