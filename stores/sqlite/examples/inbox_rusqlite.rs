//! The mark in the same transaction as the work, with rusqlite: money is booked exactly once, whatever
//! happens between the booking and the acknowledgement.
//!
//! ```sh
//! cargo run -p onceonly-sqlite --example inbox_rusqlite
//! ```

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use onceonly::{Claim, Dedup, Dialect, Ownership, SqlValue};
use onceonly_sqlite::SqliteAuthority;
use rusqlite::{Connection, ToSql, TransactionBehavior, params_from_iter, types::ToSqlOutput};

/// A message of a queue that delivers at least once.
struct Payment<'a> {
    id: &'a str,
    cents: i64,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Booked now.
    Booked,
    /// It had been booked: acknowledge.
    Before,
    /// Another consumer is at it: leave it in the queue.
    Later,
}

fn sql(value: &SqlValue) -> ToSqlOutput<'_> {
    match value {
        SqlValue::Bytes(bytes) => ToSqlOutput::from(bytes.as_slice()),
        SqlValue::Int(number) => ToSqlOutput::from(*number),
        SqlValue::Text(text) => ToSqlOutput::from(text.as_str()),
        _ => ToSqlOutput::from(rusqlite::types::Null),
    }
}

fn handle(
    payments: &Dedup,
    db: &mut Connection,
    payment: &Payment<'_>,
) -> Result<Handled, Box<dyn Error>> {
    // Before the transaction: SQLite has one writer, and would wait for itself.
    let guard = match payments.claim(payment.id)? {
        Claim::Granted(guard) => guard,
        Claim::Duplicate { .. } => return Ok(Handled::Before),
        _ => return Ok(Handled::Later),
    };
    let mark = guard.commit_statement(Dialect::Sqlite)?;
    let work = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    work.execute("UPDATE account SET cents = cents + ?1", [payment.cents])?;
    let params: Vec<ToSqlOutput<'_>> = mark.params().iter().map(sql).collect();
    let rows =
        work.execute(mark.sql(), params_from_iter(params.iter().map(|p| p as &dyn ToSql)))?;
    // No row: another consumer took over. Leaving here rolls the transaction back.
    let mark = mark.applied(rows as u64)?;
    work.commit()?;
    // It is marked by now. This only spares the next question.
    let _ = mark.confirm();
    Ok(Handled::Booked)
}

fn consumer(file: &Path) -> Result<Dedup, Box<dyn Error>> {
    Ok(Dedup::builder()
        .window(Duration::from_secs(3600))
        .authority(SqliteAuthority::open(file)?, Ownership::Shared)
        .authority_space("payments")
        .secret([7; 32])
        .in_memory()?)
}

/// Two consumers of a queue that delivers one payment three times; returns what was booked.
pub(crate) fn run(file: &Path) -> Result<i64, Box<dyn Error>> {
    let (a, b) = (consumer(file)?, consumer(file)?);
    let mut db = Connection::open(file)?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.execute_batch("CREATE TABLE account (cents INTEGER); INSERT INTO account VALUES (0)")?;
    let (first, second) = (Payment { id: "p-1", cents: 500 }, Payment { id: "p-2", cents: 70 });
    assert_eq!(handle(&a, &mut db, &first)?, Handled::Booked);
    assert_eq!(handle(&b, &mut db, &first)?, Handled::Before);
    assert_eq!(handle(&b, &mut db, &second)?, Handled::Booked);
    assert_eq!(handle(&a, &mut db, &first)?, Handled::Before);
    Ok(db.query_row("SELECT cents FROM account", [], |row| row.get(0))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    assert_eq!(run(&dir.path().join("app.db"))?, 570);
    Ok(())
}
