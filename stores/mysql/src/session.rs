//! A connection, with what this process has to know of it.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use onceonly::authority::{AuthorityError, Result, Server};
use onceonly_sql_common::{Mix, Reactor, remaining, timestamp};

use crate::builder::Builder;
use crate::error::of_connecting;
use crate::script::{NOW, Ran, Script, column};

/// Text of one packet, about. The server's own limit is asked for, and half of it is enough.
const MOST_TEXT: usize = 4 << 20;
/// A connection that nobody used for so long is looked at before it is used again.
const IDLE: Duration = Duration::from_millis(100);

/// A connection, and what drives it.
#[derive(Debug)]
pub(crate) struct Session {
    // Dropped first, outside of the runtime: its socket is closed at once.
    pub(crate) link: Link,
    reactor: Reactor,
    used: Instant,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: Conn,
    /// What tells this server from another one; found out by the first call.
    server: Option<Mix>,
    /// Text of one packet.
    pub(crate) budget: usize,
    is_mariadb: bool,
    /// What is left of the time of this call.
    left: Duration,
}

impl Session {
    pub(crate) fn connect(builder: &Builder, deadline: Instant) -> Result<Self> {
        remaining(deadline)?;
        let reactor = Reactor::new().map_err(AuthorityError::transient)?;
        let connected = reactor.run(deadline, async {
            let mut conn = Conn::new(builder.opts()).await?;
            // One after the other, and each row on its own.
            conn.query_drop(
                "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', autocommit = 1;
                 SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            )
            .await?;
            let facts = conn.query_first("SELECT @@max_allowed_packet, VERSION()").await?;
            Ok::<_, Error>((conn, facts))
        });
        let (conn, facts): (Conn, Option<(usize, String)>) = match connected {
            Some(Ok(connected)) => connected,
            Some(Err(error)) => return Err(of_connecting(error)),
            None => return Err(AuthorityError::transient("no connection within the deadline")),
        };
        let (packet, version) = facts.unwrap_or_default();
        let budget = MOST_TEXT.min(packet / 2);
        let is_mariadb = version.contains("MariaDB");
        let link = Link { conn, server: None, budget, is_mariadb, left: Duration::ZERO };
        Ok(Session { link, reactor, used: Instant::now() })
    }

    /// The server still answers, as far as is known.
    pub(crate) fn is_open(&mut self, deadline: Instant) -> bool {
        if self.used.elapsed() < IDLE {
            return true;
        }
        let answered = self.reactor.run(deadline, self.link.conn.ping());
        answered.is_some_and(|answered| answered.is_ok())
    }

    /// Waits for `work` up to the deadline; `None` when that comes first, and the reply is still
    /// due.
    pub(crate) fn run<T>(
        &mut self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut Link) -> Result<T, Error>,
    ) -> Result<Option<Result<T, Error>>> {
        let left = remaining(deadline)?;
        self.link.left = left;
        let done = self.reactor.run(deadline, work(&mut self.link));
        self.used = Instant::now();
        Ok(done)
    }
}

impl Link {
    /// Begins each call: how long it may take, the clock, and what tells the server from others.
    pub(crate) fn prelude(&self) -> Script {
        let mut script = Script::default();
        // The server gives up a little before the caller does: then nothing was applied. It waits
        // for locks in whole seconds, one at least.
        let limit = self.left - self.left / 8;
        let mut limits =
            format!("SET innodb_lock_wait_timeout = {}", limit.as_secs().clamp(1, 1_000_000));
        if self.is_mariadb {
            let seconds = limit.as_secs_f64().clamp(0.001, 1_000_000.0);
            limits += &format!(", max_statement_time = {seconds:.3}");
        }
        script.push(&limits);
        script.push(NOW);
        script.push("SELECT @now, generation FROM onceonly_meta WHERE id = 1");
        script
    }

    /// What the prelude came back with.
    pub(crate) fn server(&self, ran: &Ran) -> Option<Server> {
        let row = ran.sets.get(2).map(|set| set.rows.first())?;
        // A row that somebody deleted is another generation.
        let (us, generation) = row.map_or((0, 0), |row| (column(row, 0), column::<i64>(row, 1)));
        let incarnation = self.server?.and(generation.cast_unsigned());
        Some(Server { time: timestamp(us), incarnation: incarnation.get() })
    }

    /// Finds out what tells this server from the one that takes its place.
    pub(crate) async fn identify(&mut self) -> Result<(), Error> {
        if self.server.is_some() {
            return Ok(());
        }
        let facts: Vec<(String, String)> = self
            .conn
            .query(
                "SHOW VARIABLES WHERE Variable_name IN
                 ('server_uuid', 'server_uid', 'server_id', 'innodb_flush_log_at_trx_commit')",
            )
            .await?;
        let born: Option<Row> = self
            .conn
            .query_first(
                "SELECT CAST(UNIX_TIMESTAMP(create_time) AS SIGNED) FROM information_schema.tables
                 WHERE table_schema = DATABASE() AND table_name = 'onceonly_rows'",
            )
            .await?;
        let mut mix = Mix::of("");
        let mut is_safe = true;
        for (name, value) in &facts {
            if name == "innodb_flush_log_at_trx_commit" {
                is_safe = value == "1";
            } else {
                mix = mix.and(Mix::of(name).get()).and(Mix::of(value).get());
            }
        }
        // Tables that were made anew, from a dump for instance.
        mix = mix.and(born.map_or(0, |row| column::<i64>(&row, 0)).cast_unsigned());
        if !is_safe {
            mix = mix.and(self.boot().await?.cast_unsigned());
        }
        self.server = Some(mix);
        Ok(())
    }

    /// Another number after each start of the server.
    async fn boot(&mut self) -> Result<i64, Error> {
        self.conn
            .query_drop(
                "INSERT INTO onceonly_boot (id, number) VALUES (1, FLOOR(RAND() * 1e15))
                 ON DUPLICATE KEY UPDATE id = id",
            )
            .await?;
        let number = self.conn.query_first("SELECT number FROM onceonly_boot WHERE id = 1").await?;
        Ok(number.unwrap_or_default())
    }
}
