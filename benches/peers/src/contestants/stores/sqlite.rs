//! SQLite with a write-ahead log, never synced: the log survives the death of the process.

use std::path::Path;

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{Digest, Tables};
use crate::args::Result;

pub(crate) struct Sqlite(Mutex<Connection>);

/// One statement a key; the tables take turns.
const OBSERVE: [&str; 2] = [
    "INSERT OR IGNORE INTO a SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM b WHERE key = ?1)",
    "INSERT OR IGNORE INTO b SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM a WHERE key = ?1)",
];

impl Tables for Sqlite {
    const NAME: &'static str = "SQLite, 1,000 a transaction";

    fn open(path: &Path, _live: u64) -> Result<Self> {
        let connection = Connection::open(path.join("sqlite.db"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -524288;
             PRAGMA mmap_size = 8589934592; PRAGMA temp_store = MEMORY;
             CREATE TABLE IF NOT EXISTS a (key BLOB PRIMARY KEY) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS b (key BLOB PRIMARY KEY) WITHOUT ROWID;",
        )?;
        Ok(Sqlite(Mutex::new(connection)))
    }

    fn observe(&self, current: usize, digests: &[Digest], answers: &mut [bool]) -> Result<()> {
        let mut connection = self.0.lock();
        let transaction = connection.transaction()?;
        let mut statement = transaction.prepare_cached(OBSERVE[current])?;
        for (digest, answer) in digests.iter().zip(answers) {
            *answer = statement.execute([digest.as_slice()])? == 0;
        }
        drop(statement);
        Ok(transaction.commit()?)
    }

    fn clear(&self, table: usize) -> Result<()> {
        Ok(self.0.lock().execute_batch(["DELETE FROM a", "DELETE FROM b"][table])?)
    }
}
