//! The tables: accounts, what was booked, and a queue that delivers at least once.

use std::time::Duration;

use anyhow::Result;
use onceonly::SqlValue;
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

pub(crate) const ACCOUNTS: i64 = 4;

/// A delivery that is not acknowledged comes again after it; shorter than a lease, so that messages
/// come while somebody works on them.
const AGAIN: Duration = Duration::from_millis(400);

/// No constraint keeps a message from being booked twice: that is what the mark is for.
const TABLES: &str = "
CREATE TABLE account (id bigint PRIMARY KEY, sum bigint NOT NULL);
CREATE TABLE effects (message bigint NOT NULL, amount bigint NOT NULL);
CREATE INDEX ON effects (message);
CREATE TABLE queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message bigint NOT NULL,
    amount bigint NOT NULL,
    free_at timestamptz NOT NULL DEFAULT clock_timestamp()
)";

const TAKE: &str = "
UPDATE queue SET free_at = clock_timestamp() + $1::bigint * interval '1 millisecond'
WHERE id = (SELECT id FROM queue WHERE free_at <= clock_timestamp()
    ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, message, amount";

/// A delivery of a message.
#[derive(Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) id: i64,
    pub(crate) message: i64,
    pub(crate) amount: i64,
}

/// A connection of the user's own.
pub(crate) struct Bank {
    // Dropped first: the connection ends with it.
    client: Client,
    runtime: Runtime,
}

impl Bank {
    pub(crate) fn connect(server: &str, schema: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(server, NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute(&format!("SET search_path = \"{schema}\"")).await?;
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Bank { client, runtime })
    }

    /// Makes a schema of its own; those of the marks are in it too.
    pub(crate) fn create(&self, schema: &str) -> Result<()> {
        self.batch(&format!("CREATE SCHEMA \"{schema}\""))?;
        self.batch(TABLES)?;
        for account in 0..ACCOUNTS {
            self.execute("INSERT INTO account VALUES ($1, 0)", &[&account])?;
        }
        Ok(())
    }

    pub(crate) fn batch(&self, sql: &str) -> Result<()> {
        Ok(self.runtime.block_on(self.client.batch_execute(sql))?)
    }

    pub(crate) fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        Ok(self.runtime.block_on(self.client.query(sql, params))?)
    }

    pub(crate) fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        Ok(self.runtime.block_on(self.client.execute(sql, params))?)
    }

    /// The statement of a mark.
    pub(crate) fn run(&self, sql: &str, params: &[SqlValue]) -> Result<u64> {
        let params: Result<Vec<&(dyn ToSql + Sync)>> = params
            .iter()
            .map(|param| -> Result<&(dyn ToSql + Sync)> {
                match param {
                    SqlValue::Bytes(bytes) => Ok(bytes),
                    SqlValue::Int(number) => Ok(number),
                    SqlValue::Text(text) => Ok(text),
                    other => anyhow::bail!("a parameter {other:?}"),
                }
            })
            .collect();
        self.execute(sql, &params?)
    }

    /// One delivery for each message and its amount, all at once.
    pub(crate) fn deliver(&self, messages: &[i64], amounts: &[i64]) -> Result<()> {
        let insert = "INSERT INTO queue (message, amount)
            SELECT * FROM unnest($1::bigint[], $2::bigint[])";
        self.execute(insert, &[&messages, &amounts]).map(|_| ())
    }

    pub(crate) fn take(&self) -> Result<Option<Delivery>> {
        let again = i64::try_from(AGAIN.as_millis())?;
        let rows = self.query(TAKE, &[&again])?;
        Ok(rows.first().map(|row| Delivery {
            id: row.get(0),
            message: row.get(1),
            amount: row.get(2),
        }))
    }

    pub(crate) fn acknowledge(&self, delivery: Delivery) -> Result<()> {
        self.execute("DELETE FROM queue WHERE id = $1", &[&delivery.id]).map(|_| ())
    }

    /// Deliveries that nobody has acknowledged.
    pub(crate) fn waiting(&self) -> Result<i64> {
        Ok(self.query("SELECT count(*) FROM queue", &[])?[0].get(0))
    }
}
