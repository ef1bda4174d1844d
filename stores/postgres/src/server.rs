//! The server: calls over connections that are kept, tried again while there is time.

use std::time::Instant;

use onceonly::authority::{AuthorityError, Result, Server};
use onceonly_sql_common::{Backoff, Pool};
use tokio_postgres::{Client, Error};

use crate::builder::Builder;
use crate::error::{is_passing, of_statement};
use crate::schema;
use crate::session::{Ended, Link, Session};

/// The server, as this process has it.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    pub(crate) builder: Builder,
    idle: Pool<Session>,
}

impl PostgresServer {
    pub(crate) fn new(builder: Builder) -> Self {
        PostgresServer { builder, idle: Pool::default() }
    }

    fn session(&self, deadline: Instant) -> Result<Session> {
        while let Some(session) = self.idle.take() {
            if session.is_open() {
                return Ok(session);
            }
        }
        Session::connect(&self.builder, deadline)
    }

    /// One attempt at a call. `work` is given one connection and sends what it has over it.
    ///
    /// Its error is `Err(None)` when the server said that another attempt may succeed.
    pub(crate) fn attempt<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&Link) -> Result<T, Error>,
    ) -> Result<Result<(Server, T), Passing>> {
        let mut session = self.session(deadline)?;
        match session.call(deadline, work)? {
            Ended::Done(server, done) => {
                self.idle.give_back(session);
                Ok(Ok((server, done)))
            }
            Ended::Failed(error) => {
                if session.survives(&error) {
                    self.idle.give_back(session);
                }
                if is_passing(&error) {
                    return Ok(Err(Passing(of_statement(error))));
                }
                Err(of_statement(error))
            }
            Ended::Unclear(error) => Err(AuthorityError::undecided(error)),
            Ended::Late => Err(AuthorityError::undecided("no reply within the deadline")),
        }
    }

    /// Attempts until the deadline.
    pub(crate) fn call<T>(
        &self,
        deadline: Instant,
        mut work: impl AsyncFnMut(&Link) -> Result<T, Error>,
    ) -> Result<(Server, T)> {
        let mut backoff = Backoff::until(deadline);
        loop {
            match self.attempt(deadline, async |link: &Link| work(link).await)? {
                Ok(done) => return Ok(done),
                Err(Passing(_)) if backoff.wait() => {}
                Err(Passing(error)) => return Err(error),
            }
        }
    }

    /// Work that has a connection for itself: a transaction of several round trips, which is tried
    /// again as a whole.
    pub(crate) fn alone<T>(
        &self,
        deadline: Instant,
        mut work: impl AsyncFnMut(&mut Client) -> Result<T, Error>,
    ) -> Result<T> {
        let mut backoff = Backoff::until(deadline);
        loop {
            let mut session = self.session(deadline)?;
            let error = match session.alone(deadline, async |client| work(client).await)? {
                None => return Err(AuthorityError::undecided("no reply within the deadline")),
                Some(Ok(done)) => {
                    self.idle.give_back(session);
                    return Ok(done);
                }
                Some(Err(error)) => error,
            };
            let passing = is_passing(&error);
            if session.survives(&error) {
                self.idle.give_back(session);
            }
            if !passing || !backoff.wait() {
                return Err(of_statement(error));
            }
        }
    }

    /// Makes the tables, if they are missing and this may make them; refuses those of another
    /// release.
    pub(crate) fn ensure_tables(&self, deadline: Instant) -> Result<()> {
        let (name, migrates) = (&self.builder.schema, self.builder.migrates);
        let version = self.alone(deadline, async |client: &mut Client| {
            match schema::version(client).await? {
                None if migrates => {
                    schema::migrate(client, name).await?;
                    schema::version(client).await
                }
                version => Ok(version),
            }
        })?;
        schema::check(version, name)
    }
}

/// An error after which another attempt may succeed at once: nothing was applied.
pub(crate) struct Passing(pub(crate) AuthorityError);
