//! The server: calls over connections that are kept, tried again while there is time.

use std::time::Instant;

use mysql_async::Error;
use onceonly::authority::{AuthorityError, Result};
use onceonly_sql_common::{Backoff, Pool};

use crate::builder::Builder;
use crate::error::{is_passing, of_statement};
use crate::session::{Link, Session};

/// The server, as this process has it.
#[derive(Debug)]
pub(crate) struct MysqlServer {
    pub(crate) builder: Builder,
    idle: Pool<Session>,
}

/// An error after which another attempt may succeed at once: nothing was applied.
pub(crate) struct Passing(pub(crate) AuthorityError);

impl MysqlServer {
    pub(crate) fn new(builder: Builder) -> Self {
        MysqlServer { builder, idle: Pool::default() }
    }

    fn session(&self, deadline: Instant) -> Result<Session> {
        while let Some(mut session) = self.idle.take() {
            if session.is_open(deadline) {
                return Ok(session);
            }
        }
        Session::connect(&self.builder, deadline)
    }

    /// One attempt at a call, over one connection. The connection is kept if all went well: after
    /// an error it may be in the middle of a transaction, which ends with it.
    pub(crate) fn attempt<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut Link) -> Result<T, Error>,
    ) -> Result<Result<T, Passing>> {
        let mut session = self.session(deadline)?;
        match session.run(deadline, work)? {
            Some(Ok(done)) => {
                self.idle.give_back(session);
                Ok(Ok(done))
            }
            Some(Err(error)) if is_passing(&error) => Ok(Err(Passing(of_statement(error)))),
            Some(Err(error)) => Err(of_statement(error)),
            None => Err(AuthorityError::undecided("no reply within the deadline")),
        }
    }

    /// Attempts until the deadline.
    pub(crate) fn call<T>(
        &self,
        deadline: Instant,
        mut work: impl AsyncFnMut(&mut Link) -> Result<T, Error>,
    ) -> Result<T> {
        let mut backoff = Backoff::until(deadline);
        loop {
            match self.attempt(deadline, async |link: &mut Link| work(link).await)? {
                Ok(done) => return Ok(done),
                Err(Passing(_)) if backoff.wait() => {}
                Err(Passing(error)) => return Err(error),
            }
        }
    }
}
