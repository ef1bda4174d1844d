//! The transactional inbox: the mark is a row in the user's own transaction, so it is there exactly when
//! the effects of the work are. (The pattern is known as "transactional inbox" or "idempotent receiver".)

use std::fmt;

use super::{ClaimGuard, CommitError};
use crate::authority::{SqlValue, Statement};
use crate::error::Error;

/// A commit to be carried out inside a transaction of the user's: [`ClaimGuard::commit_statement`].
///
/// Dropping it leaves the claim as it is, because nobody knows whether the statement was run: others get
/// the key when the lease is over and the transaction was not committed.
#[must_use = "the key is not marked before the statement is run and its transaction committed"]
pub struct CommitStatement {
    guard: ClaimGuard,
    statement: Statement,
}

impl CommitStatement {
    pub(super) fn new(guard: ClaimGuard, statement: Statement) -> Self {
        CommitStatement { guard, statement }
    }

    /// The statement, in the dialect that was asked for.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.statement.sql
    }

    /// Its parameters, in their order.
    #[must_use]
    pub fn params(&self) -> &[SqlValue] {
        &self.statement.params
    }

    /// Says how many rows the statement changed. One is right.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when it was none: the claim was taken over or its key forgotten. Roll the
    /// transaction back: another owner does the work.
    pub fn applied(self, rows: u64) -> Result<InTransaction, CommitError> {
        match rows {
            0 if !self.guard.shadow => {
                let error = Error::LeaseLost { token: self.guard.token() };
                Err(CommitError::new(self.guard, error))
            }
            changed => {
                if changed == 0 && !self.guard.is_ghost() {
                    let lost = Error::LeaseLost { token: self.guard.token() };
                    self.guard.engine.let_through().count_error(&lost);
                }
                Ok(InTransaction { guard: self.guard })
            }
        }
    }

    /// The claim, when the statement was not run or its transaction rolled back: to try again, or to
    /// abandon it.
    pub fn into_guard(self) -> ClaimGuard {
        self.guard
    }
}

impl fmt::Debug for CommitStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitStatement")
            .field("guard", &self.guard)
            .field("sql", &self.statement.sql)
            .finish_non_exhaustive()
    }
}

/// A mark that is made in a transaction which has not ended. Until [`InTransaction::confirm`] this store
/// does not know the key as done, and asks the authority.
///
/// Dropping it costs a question when the key comes again, and nothing else.
#[derive(Debug)]
#[must_use = "confirm it after the transaction was committed"]
pub struct InTransaction {
    guard: ClaimGuard,
}

impl InTransaction {
    /// To be called when the transaction was committed: from now on this store answers `Duplicate`
    /// without asking. It looks at the server first, so it may also be called when nobody knows whether
    /// the commit went through.
    ///
    /// # Errors
    /// [`Error::InFlight`] when the mark is not there: the transaction was rolled back, or has not ended.
    /// [`Error::LeaseLost`] when the claim is not there either. [`Error::Authority`] when the server does
    /// not say: the mark stands, if the transaction does. The guard comes back; its lease may run on.
    pub fn confirm(self) -> Result<(), CommitError> {
        if self.guard.is_ghost() {
            return Ok(());
        }
        match self.guard.engine.confirm(self.guard.held) {
            Ok(()) => Ok(()),
            Err(error) => self.guard.not_committed(error),
        }
    }

    /// To be called when the transaction was rolled back: the claim, to try again or to abandon it.
    pub fn rolled_back(self) -> ClaimGuard {
        self.guard
    }
}
