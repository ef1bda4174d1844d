//! The tables, and how they come about.

use onceonly::authority::AuthorityError;
use tokio_postgres::{Client, Error};

/// Of the tables that this release reads and writes.
const VERSION: i32 = 1;

pub(crate) const MIGRATIONS: &str = include_str!("schema.sql");

/// The version of the tables in the schema of the session; `None` when there are none.
pub(crate) async fn version(client: &Client) -> Result<Option<i32>, Error> {
    let there = client.query_one("SELECT to_regclass('meta') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let version = client.query_opt("SELECT version FROM meta WHERE id = 1", &[]).await?;
    Ok(version.map(|row| row.get(0)))
}

/// Makes the tables, unless they are there. Of several processes that come at once one does.
pub(crate) async fn migrate(client: &mut Client, schema: &str) -> Result<(), Error> {
    let work = client.transaction().await?;
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('onceonly ' || $1::text, 0))";
    work.execute(lock, &[&schema]).await?;
    let there = "SELECT to_regnamespace(quote_ident($1::text)) IS NOT NULL,
         to_regclass('meta') IS NOT NULL";
    let there = work.query_one(there, &[&schema]).await?;
    if !there.get::<_, bool>(0) {
        work.batch_execute(&format!("CREATE SCHEMA {}", quoted(schema))).await?;
    }
    if !there.get::<_, bool>(1) {
        work.batch_execute(MIGRATIONS).await?;
    }
    work.commit().await
}

/// Refuses tables of another release.
pub(crate) fn check(version: Option<i32>, schema: &str) -> Result<(), AuthorityError> {
    match version {
        Some(VERSION) => Ok(()),
        Some(other) => Err(AuthorityError::refused(format!(
            "the tables of the schema \"{schema}\" are of version {other}, and this release knows \
             version {VERSION}: update onceonly-postgres in all processes that use them"
        ))),
        None => Err(AuthorityError::refused(format!(
            "the schema \"{schema}\" has no tables: run \
             `onceonly_postgres::migrations(\"{schema}\")`, or let the builder migrate"
        ))),
    }
}

/// A name as SQL has it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
