//! A connection, with what this process has to know of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join3;
use onceonly::authority::{AuthorityError, Result, Server};
use onceonly_sql_common::{Mix, Reactor, remaining, timestamp};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, NoTls, Row, Statement};

use crate::builder::Builder;
use crate::error::{leaves_connection, of_connecting};
use crate::schema::quoted;

/// The server's clock, and what changes when its tables are others.
const CLOCK: &str = "SELECT clock_us(), generation, 'rows'::regclass::oid::bigint FROM meta";

/// A connection, and what drives it.
#[derive(Debug)]
pub(crate) struct Session {
    // Dropped first: its socket is closed when what drives it goes.
    pub(crate) link: Link,
    reactor: Reactor,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    statements: RefCell<HashMap<&'static str, Statement>>,
    /// What tells this server from another one.
    server: Mix,
    /// In milliseconds, as the server has it; 0 is none.
    timeout: Cell<u64>,
}

/// How a call ended.
pub(crate) enum Ended<T> {
    /// The server, and what was wanted.
    Done(Server, T),
    Failed(Error),
    /// It was applied, and the server did not say when.
    Unclear(Error),
    /// The deadline came first, and the reply is still due.
    Late,
}

impl Session {
    pub(crate) fn connect(builder: &Builder, deadline: Instant) -> Result<Self> {
        let left = remaining(deadline)?;
        let reactor = Reactor::new().map_err(AuthorityError::transient)?;
        let mut config = builder.config.clone();
        // Of one address; the deadline is for all of them. The kernel gives up on a silent network.
        config.connect_timeout(left).tcp_user_timeout(left.max(Duration::from_secs(1)));
        let connected = reactor.run(deadline, async {
            let (client, connection) = config.connect(NoTls).await?;
            reactor.spawn(async move {
                // Its errors are those of the calls that wait for it.
                let _ = connection.await;
            });
            begin(&client, &builder.schema).await?;
            let server = identify(&client).await?;
            Ok((client, server))
        });
        match connected {
            Some(Ok((client, Some(server)))) => {
                let (statements, timeout) = (RefCell::default(), Cell::new(0));
                Ok(Session { link: Link { client, statements, server, timeout }, reactor })
            }
            Some(Ok((_, None))) => Err(AuthorityError::transient(
                "this server is a standby, which takes no writes: name the primary too, and add \
                 target_session_attrs=read-write",
            )),
            Some(Err(error)) => Err(of_connecting(error)),
            None => Err(AuthorityError::transient("no connection within the deadline")),
        }
    }

    /// The server has not closed the connection, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.reactor.catch_up();
        !self.link.client.is_closed()
    }

    /// Waits for `work` up to the deadline; the server is asked for its clock beside it.
    pub(crate) fn call<T>(
        &mut self,
        deadline: Instant,
        work: impl AsyncFnOnce(&Link) -> Result<T, Error>,
    ) -> Result<Ended<T>> {
        let left = remaining(deadline)?;
        let link = &self.link;
        // All three are sent before the first reply comes.
        let all = async { join3(link.limit(left), link.clock(), work(link)).await };
        Ok(match self.reactor.run(deadline, all) {
            None => Ended::Late,
            Some((.., Err(error))) => Ended::Failed(error),
            Some((Err(error), ..) | (_, Err(error), _)) => Ended::Unclear(error),
            Some((Ok(()), Ok(server), Ok(done))) => Ended::Done(server, done),
        })
    }

    /// Waits for something that needs the connection for itself; `None` when the deadline came
    /// first.
    pub(crate) fn alone<T>(
        &mut self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<Option<Result<T, Error>>> {
        let left = remaining(deadline)?;
        // For this the timeout is of each statement.
        let all = async {
            self.link.limit(left).await?;
            work(&mut self.link.client).await
        };
        Ok(self.reactor.run(deadline, all))
    }

    /// Whether another call may have the connection after this error.
    pub(crate) fn survives(&self, error: &Error) -> bool {
        leaves_connection(error) && !self.link.client.is_closed()
    }
}

impl Link {
    /// A statement, prepared when it is first used.
    pub(crate) async fn query(
        &self,
        text: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let known = self.statements.borrow().get(text).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                let statement = self.client.prepare(text).await?;
                self.statements.borrow_mut().insert(text, statement.clone());
                statement
            }
        };
        self.client.query(&statement, params).await
    }

    async fn clock(&self) -> Result<Server, Error> {
        let rows = self.query(CLOCK, &[]).await?;
        // A row that somebody deleted is another generation.
        let (us, generation, table) = rows.first().map_or((0, 0, 0), |row| {
            (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2))
        });
        let incarnation = self.server.and(generation.cast_unsigned()).and(table.cast_unsigned());
        Ok(Server { time: timestamp(us), incarnation: incarnation.get() })
    }

    /// Has the server give up before the caller does: then it is known that nothing was applied. It
    /// is told another time only when that differs by an eighth.
    async fn limit(&self, left: Duration) -> Result<(), Error> {
        let timeout = coarse(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        if self.timeout.replace(timeout) == timeout {
            return Ok(());
        }
        self.client.batch_execute(&format!("SET statement_timeout = {timeout}")).await
    }
}

/// Rounded down to three significant bits, so that calls with one deadline have one timeout.
fn coarse(millis: u64) -> u64 {
    let millis = millis.clamp(1, i32::MAX as u64);
    let shift = (u64::BITS - millis.leading_zeros()).saturating_sub(3);
    millis >> shift << shift
}

/// What every session begins with. Rows are found by their index, also while the table is so small
/// that a plan which is kept would rather read all of it. What cannot be done so looks expensive
/// then, and is not worth compiling.
async fn begin(client: &Client, schema: &str) -> Result<(), Error> {
    let settings = format!(
        "SET search_path = {};
         SET default_transaction_isolation = 'read committed';
         SET idle_in_transaction_session_timeout = '30s';
         SET lock_timeout = 0;
         SET enable_seqscan = off;
         SET jit = off;
         SET client_min_messages = warning;
         SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') = 'off'",
        quoted(schema)
    );
    client.batch_execute(&settings).await
}

/// What tells this server from the one that takes its place; `None` for a standby.
async fn identify(client: &Client) -> Result<Option<Mix>, Error> {
    let facts = "SELECT pg_is_in_recovery(), current_setting('fsync') = 'on',
         (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
         (SELECT oid::bigint FROM pg_database WHERE datname = current_database())";
    let facts = client.query_one(facts, &[]).await?;
    if facts.get(0) {
        return Ok(None);
    }
    let (is_safe, started, database): (bool, i64, i64) = (facts.get(1), facts.get(2), facts.get(3));
    // A server that was promoted, or restored to a point in time, has another timeline.
    let line = "SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8)
         FROM pg_control_system()";
    let mix = match client.query_one(line, &[]).await {
        Ok(row) if is_safe => Mix::of(row.get(1)).and(row.get::<_, i64>(0).cast_unsigned()),
        // It does not wait for its disk, or does not say which it is: each start may have lost
        // something.
        Ok(_) => Mix::of("started").and(started.cast_unsigned()),
        Err(error) if error.code().is_some() => Mix::of("started").and(started.cast_unsigned()),
        Err(error) => return Err(error),
    };
    Ok(Some(mix.and(database.cast_unsigned())))
}

#[cfg(test)]
mod tests {
    use super::coarse;

    #[test]
    fn timeouts_are_a_little_shorter_than_the_deadline() {
        for (left, timeout) in [(0, 1), (1, 1), (7, 7), (9, 8), (499, 448), (500, 448), (999, 896)]
        {
            assert_eq!(coarse(left), timeout);
        }
        assert!(coarse(u64::MAX) <= i32::MAX as u64);
    }
}
