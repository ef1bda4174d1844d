//! Tables of chunks: one an hour in which slices begin, made when it is first needed, dropped when
//! all in it is over.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mysql_async::Error;
use mysql_async::prelude::Queryable;
use onceonly::authority::Result;
use onceonly_sql_common::signed;

use crate::script::NOW;
use crate::server::MysqlServer;
use crate::session::Link;
use crate::space::number;

/// The slices that begin within it share a table, of all spaces.
const SPAN_MS: i64 = 3_600_000;

const LIST: &str = "SELECT table_name FROM information_schema.tables
    WHERE table_schema = DATABASE() AND table_name REGEXP '^onceonly_chunks_m?[0-9]+$'";

/// The tables that are known to be there.
#[derive(Debug, Default)]
pub(crate) struct Spans(Mutex<BTreeSet<i64>>);

/// Which table has a slice.
pub(crate) fn span_of(slice: u64) -> i64 {
    signed(slice).div_euclid(SPAN_MS)
}

pub(crate) fn table(span: i64) -> String {
    let sign = if span < 0 { "m" } else { "" };
    format!("onceonly_chunks_{sign}{}", span.unsigned_abs())
}

/// The tables that there are.
pub(crate) async fn tables(link: &mut Link) -> Result<Vec<String>, Error> {
    link.conn.query(LIST).await
}

impl Spans {
    /// Makes those that are missing.
    pub(crate) async fn ensure(&self, link: &mut Link, spans: &BTreeSet<i64>) -> Result<(), Error> {
        for span in spans {
            if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(span) {
                continue;
            }
            let make = format!("CREATE TABLE IF NOT EXISTS {} LIKE onceonly_chunks", table(*span));
            link.conn.query_drop(make).await?;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*span);
        }
        Ok(())
    }

    /// Somebody dropped one of them.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Drops the tables in which everything is over.
    pub(crate) fn drop_old(&self, server: &MysqlServer, deadline: Instant) -> Result<()> {
        server.call(deadline, async |link: &mut Link| {
            for table in tables(link).await? {
                if drop_if_over(link, &table).await? {
                    self.forget();
                }
            }
            Ok(())
        })
    }
}

/// Looks first without a lock that others feel.
async fn drop_if_over(link: &mut Link, table: &str) -> Result<bool, Error> {
    let live = format!("{NOW}; SELECT 1 FROM {table} WHERE expires > @now LIMIT 1");
    if number(link, &live).await?.is_some() {
        return Ok(false);
    }
    // Nobody adds to it from here on.
    link.conn.query_drop(format!("SET lock_wait_timeout = 1; LOCK TABLES {table} WRITE")).await?;
    let live = format!("SELECT 1 FROM {table} WHERE expires > @now LIMIT 1");
    let is_over = number(link, &live).await?.is_none();
    if is_over {
        link.conn.query_drop(format!("DROP TABLE {table}")).await?;
    }
    link.conn.query_drop("UNLOCK TABLES; SET lock_wait_timeout = DEFAULT").await?;
    Ok(is_over)
}
