//! The tables, and how they come about.

use std::time::Instant;

use mysql_async::Error;
use mysql_async::prelude::Queryable;
use onceonly::authority::{AuthorityError, Result};

use crate::server::MysqlServer;
use crate::session::Link;
use crate::space::number;

/// Of the tables that this release reads and writes.
const VERSION: i64 = 1;

pub(crate) const MIGRATIONS: &str = include_str!("schema.sql");

/// Makes the tables, if they are missing and this may make them; refuses those of another release.
/// Each statement does nothing where another process was first.
pub(crate) fn ensure(server: &MysqlServer, deadline: Instant) -> Result<()> {
    let migrates = server.builder.migrates;
    let found = server.call(deadline, async |link: &mut Link| {
        let found = version(link).await?;
        if found.is_some() || !migrates {
            return Ok(found);
        }
        link.conn.query_drop(MIGRATIONS).await?;
        version(link).await
    })?;
    match found {
        Some(VERSION) => Ok(()),
        Some(other) => Err(AuthorityError::refused(format!(
            "the tables are of version {other}, and this release knows version {VERSION}: update \
             onceonly-mysql in all processes that use them"
        ))),
        None => Err(AuthorityError::refused(
            "the database has no tables: run `onceonly_mysql::migrations()` in it, or let the \
             builder migrate",
        )),
    }
}

/// `None` when there are no tables.
async fn version(link: &mut Link) -> Result<Option<i64>, Error> {
    let there = "SELECT 1 FROM information_schema.tables
         WHERE table_schema = DATABASE() AND table_name = 'onceonly_meta'";
    if number(link, there).await?.is_none() {
        return Ok(None);
    }
    number(link, "SELECT version FROM onceonly_meta WHERE id = 1").await
}
