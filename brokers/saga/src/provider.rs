//! The payment provider: another system with a database of its own, so that no transaction spans it
//! and the shop. Like real ones it takes an idempotency key, here order and attempt.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, TransactionBehavior, params};

use crate::Attempt;

/// The provider's answer; asked again with the same key it gives the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    Charged,
    Declined,
}

pub struct Provider {
    connection: Connection,
}

impl Provider {
    pub fn open(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join("provider.sqlite"))?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS answer (order_id INTEGER, attempt INTEGER,
                 charged INTEGER NOT NULL, PRIMARY KEY (order_id, attempt));
             CREATE TABLE IF NOT EXISTS movement (order_id INTEGER, attempt INTEGER);",
        )?;
        Ok(Provider { connection })
    }

    /// Moves the money, at most once for one attempt. Every fourth attempt has no money.
    pub fn charge(&mut self, attempt: Attempt) -> Result<Charge> {
        let key = params![attempt.order, attempt.number];
        let charged = (attempt.order + attempt.number) % 4 != 0;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let first = transaction.execute(
            "INSERT INTO answer (order_id, attempt, charged) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
            params![attempt.order, attempt.number, charged],
        )?;
        if first == 1 && charged {
            transaction.execute("INSERT INTO movement (order_id, attempt) VALUES (?1, ?2)", key)?;
        }
        let charged: bool = transaction.query_row(
            "SELECT charged FROM answer WHERE order_id = ?1 AND attempt = ?2",
            key,
            |row| row.get(0),
        )?;
        transaction.commit()?;
        Ok(if charged { Charge::Charged } else { Charge::Declined })
    }

    /// All movements of money, as attempts.
    pub fn movements(&self) -> Result<Vec<Attempt>> {
        let mut statement = self.connection.prepare("SELECT order_id, attempt FROM movement")?;
        let rows = statement
            .query_map([], |row| Ok(Attempt { order: row.get(0)?, number: row.get(1)? }))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
