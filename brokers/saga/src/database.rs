//! The shop's database, SQLite or PostgreSQL, behind the few calls that the shop needs. Statements are
//! written once: parameters as `?1`, types that both know.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use postgres::NoTls;
use postgres::types::{ToSql, Type};
use rusqlite::TransactionBehavior;

/// Where the shop is.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// PostgreSQL, as `host=… user=… dbname=…`; without it a file of SQLite.
    #[arg(long)]
    pub postgres: Option<String>,
    /// The schema of its tables there.
    #[arg(long, default_value = "onceonly_saga")]
    pub schema: String,
    /// The directory of the store, of the payment provider, and of the file of SQLite.
    #[arg(long)]
    pub dir: PathBuf,
}

impl Place {
    /// A file of SQLite in `dir`.
    #[must_use]
    pub fn sqlite(dir: &Path) -> Self {
        Place { postgres: None, schema: String::new(), dir: dir.to_owned() }
    }
}

/// A parameter, or a column of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    Text(String),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

/// A row of an answer.
pub(crate) struct Row(Vec<Value>);

impl Row {
    pub(crate) fn number(&self, column: usize) -> Result<i64> {
        match self.0.get(column) {
            Some(Value::Number(number)) => Ok(*number),
            other => bail!("column {column} is no number: {other:?}"),
        }
    }

    pub(crate) fn text(&self, column: usize) -> Result<&str> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Ok(text),
            other => bail!("column {column} is no text: {other:?}"),
        }
    }
}

pub(crate) enum Database {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Client>),
}

/// Rolled back when it is dropped.
pub(crate) enum Transaction<'a> {
    Sqlite(rusqlite::Transaction<'a>),
    Postgres(postgres::Transaction<'a>),
}

impl Database {
    /// Opens it and makes `tables` where they are missing. In them `NUMBERED` is a column that grows.
    pub(crate) fn open(place: &Place, tables: &str) -> Result<Self> {
        let Some(server) = &place.postgres else {
            let connection = rusqlite::Connection::open(place.dir.join("shop.sqlite"))?;
            connection.busy_timeout(Duration::from_secs(30))?;
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
            connection.execute_batch(&tables.replace("NUMBERED", "INTEGER"))?;
            return Ok(Database::Sqlite(connection));
        };
        let mut client = postgres::Client::connect(server, NoTls)
            .with_context(|| format!("no PostgreSQL at {server}"))?;
        // Two workers may make the same tables at once, and one of them would fail.
        let schema = &place.schema;
        client.batch_execute(&format!(
            "SET client_min_messages = warning;
             BEGIN;
             SELECT pg_advisory_xact_lock(hashtext('{schema}'));
             CREATE SCHEMA IF NOT EXISTS {schema};
             SET search_path TO {schema};
             {}
             COMMIT;",
            tables.replace("NUMBERED", "BIGINT GENERATED ALWAYS AS IDENTITY"),
        ))?;
        Ok(Database::Postgres(Box::new(client)))
    }

    /// Removes all tables of a schema in PostgreSQL.
    pub(crate) fn remove(place: &Place) -> Result<()> {
        if let Some(server) = &place.postgres {
            let mut client = postgres::Client::connect(server, NoTls)?;
            let remove = format!(
                "SET client_min_messages = warning; DROP SCHEMA IF EXISTS {} CASCADE",
                place.schema
            );
            client.batch_execute(&remove)?;
        }
        Ok(())
    }

    pub(crate) fn begin(&mut self) -> Result<Transaction<'_>> {
        Ok(match self {
            Database::Sqlite(connection) => {
                let immediate = TransactionBehavior::Immediate;
                Transaction::Sqlite(connection.transaction_with_behavior(immediate)?)
            }
            Database::Postgres(client) => Transaction::Postgres(client.transaction()?),
        })
    }
}

impl Transaction<'_> {
    /// What locks the rows of a `SELECT` until the end. SQLite has one writer at a time.
    pub(crate) fn locking(&self) -> &'static str {
        match self {
            Transaction::Sqlite(_) => "",
            Transaction::Postgres(_) => "FOR UPDATE",
        }
    }

    /// Returns the number of rows that were changed.
    pub(crate) fn execute(&mut self, statement: &str, parameters: &[Value]) -> Result<u64> {
        match self {
            Transaction::Sqlite(transaction) => {
                let mut statement = transaction.prepare_cached(statement)?;
                let parameters = parameters.iter().map(for_sqlite);
                Ok(statement.execute(rusqlite::params_from_iter(parameters))? as u64)
            }
            Transaction::Postgres(transaction) => {
                Ok(transaction.execute(&statement.replace('?', "$"), &for_postgres(parameters))?)
            }
        }
    }

    pub(crate) fn query(&mut self, statement: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        match self {
            Transaction::Sqlite(transaction) => {
                let mut statement = transaction.prepare_cached(statement)?;
                let columns = statement.column_count();
                let parameters = rusqlite::params_from_iter(parameters.iter().map(for_sqlite));
                let mut found = statement.query(parameters)?;
                let mut rows = Vec::new();
                while let Some(row) = found.next()? {
                    let values = (0..columns).map(|column| from_sqlite(row, column));
                    rows.push(Row(values.collect::<Result<_>>()?));
                }
                Ok(rows)
            }
            Transaction::Postgres(transaction) => {
                let statement = statement.replace('?', "$");
                let found = transaction.query(&statement, &for_postgres(parameters))?;
                found.iter().map(from_postgres).collect()
            }
        }
    }

    pub(crate) fn commit(self) -> Result<()> {
        match self {
            Transaction::Sqlite(transaction) => Ok(transaction.commit()?),
            Transaction::Postgres(transaction) => Ok(transaction.commit()?),
        }
    }
}

fn for_sqlite(value: &Value) -> &dyn rusqlite::ToSql {
    match value {
        Value::Number(number) => number,
        Value::Text(text) => text,
    }
}

fn from_sqlite(row: &rusqlite::Row<'_>, column: usize) -> Result<Value> {
    Ok(match row.get(column)? {
        rusqlite::types::Value::Integer(number) => Value::Number(number),
        rusqlite::types::Value::Text(text) => Value::Text(text),
        other => bail!("column {column} is {other:?}"),
    })
}

fn for_postgres(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    fn one(value: &Value) -> &(dyn ToSql + Sync) {
        match value {
            Value::Number(number) => number,
            Value::Text(text) => text,
        }
    }
    values.iter().map(one).collect()
}

fn from_postgres(row: &postgres::Row) -> Result<Row> {
    let one = |(at, column): (usize, &postgres::Column)| match *column.type_() {
        Type::INT8 => Ok(Value::Number(row.try_get(at)?)),
        Type::TEXT => Ok(Value::Text(row.try_get(at)?)),
        ref other => bail!("column {at} is of type {other}"),
    };
    Ok(Row(row.columns().iter().enumerate().map(one).collect::<Result<_>>()?))
}
