//! The mark in the same transaction as the work, with sqlx: money is booked exactly once, whatever
//! happens between the booking and the acknowledgement.
//!
//! ```sh
//! cargo run -p onceonly-postgres --example inbox_sqlx -- postgres://user:password@host/database
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use onceonly::authority::Authority;
use onceonly::{Claim, CommitStatement, Dedup, Dialect, Ownership, SqlValue};
use onceonly_postgres::PostgresAuthority;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool};

type Failure = Box<dyn Error + Send + Sync>;

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

async fn run_mark(work: &mut PgConnection, mark: &CommitStatement) -> Result<u64, sqlx::Error> {
    let mut query = sqlx::query(mark.sql());
    for param in mark.params() {
        query = match param {
            SqlValue::Bytes(bytes) => query.bind(bytes.as_slice()),
            SqlValue::Int(number) => query.bind(number),
            SqlValue::Text(text) => query.bind(text.as_str()),
            other => return Err(sqlx::Error::Protocol(format!("a parameter {other:?}"))),
        };
    }
    Ok(query.execute(work).await?.rows_affected())
}

async fn handle(payments: &Dedup, db: &PgPool, payment: &Payment<'_>) -> Result<Handled, Failure> {
    // Before the transaction, so that this sees the claim at every isolation level. It blocks until the
    // server has answered: `spawn_blocking` where other tasks share the thread.
    let guard = match payments.claim(payment.id)? {
        Claim::Granted(guard) => guard,
        Claim::Duplicate { .. } => return Ok(Handled::Before),
        _ => return Ok(Handled::Later),
    };
    let mark = guard.commit_statement(Dialect::Postgres)?;
    let mut work = db.begin().await?;
    sqlx::query("UPDATE account SET cents = cents + $1")
        .bind(payment.cents)
        .execute(&mut *work)
        .await?;
    let rows = run_mark(&mut work, &mark).await?;
    // No row: another consumer took over. Leaving here rolls the transaction back.
    let mark = mark.applied(rows)?;
    work.commit().await?;
    // It is marked by now. This only spares the next question.
    let _ = mark.confirm();
    Ok(Handled::Booked)
}

fn consumer(server: Arc<dyn Authority>) -> Result<Dedup, Failure> {
    Ok(Dedup::builder()
        .window(Duration::from_secs(3600))
        .authority(server, Ownership::Shared)
        .authority_space("payments")
        .secret([7; 32])
        .in_memory()?)
}

/// Two consumers of a queue that delivers one payment three times; returns what was booked.
pub(crate) async fn run(url: &str, schema: &str) -> Result<i64, Failure> {
    let server = || PostgresAuthority::builder(url).schema(schema).build();
    let (a, b) = (consumer(Arc::new(server()?))?, consumer(Arc::new(server()?))?);
    // One connection, which has a table of its own here: the example leaves nothing behind.
    let db = PgPoolOptions::new().max_connections(1).connect(url).await?;
    let account = "CREATE TEMPORARY TABLE account (cents bigint); INSERT INTO account VALUES (0)";
    sqlx::raw_sql(account).execute(&db).await?;
    let (first, second) = (Payment { id: "p-1", cents: 500 }, Payment { id: "p-2", cents: 70 });
    let handled = [
        handle(&a, &db, &first).await?,
        handle(&b, &db, &first).await?,
        handle(&b, &db, &second).await?,
        handle(&a, &db, &first).await?,
    ];
    assert_eq!(handled, [Handled::Booked, Handled::Before, Handled::Booked, Handled::Before]);
    Ok(sqlx::query_scalar("SELECT cents FROM account").fetch_one(&db).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let url =
        std::env::args().nth(1).ok_or("which server? postgres://user:password@host/database")?;
    let schema = format!("onceonly_example_{}", std::process::id());
    let booked = run(&url, &schema).await;
    let db = PgPool::connect(&url).await?;
    sqlx::raw_sql(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).execute(&db).await?;
    assert_eq!(booked?, 570);
    Ok(())
}
