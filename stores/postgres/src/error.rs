//! What an error of the server or its client means to the engine.

use onceonly::authority::AuthorityError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What the server said of a statement, or what kept it from saying anything.
pub(crate) fn of_statement(error: Error) -> AuthorityError {
    let Some(code) = error.code() else {
        // The connection ended while the reply was due.
        return AuthorityError::undecided(error);
    };
    if is_end(code) {
        // It may have said so after the commit.
        AuthorityError::undecided(error)
    } else if refuses(code) {
        AuthorityError::refused(error)
    } else {
        // Every statement is a transaction, and an error rolls it back.
        AuthorityError::transient(error)
    }
}

/// Why there is no connection: nothing was sent over it.
pub(crate) fn of_connecting(error: Error) -> AuthorityError {
    match error.code() {
        Some(code) if refuses(code) => AuthorityError::refused(error),
        _ => AuthorityError::transient(error),
    }
}

/// The connection is still good for another statement.
pub(crate) fn leaves_connection(error: &Error) -> bool {
    // After these the session is not what it was, or another server is wanted.
    let others = [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    error.code().is_some_and(|code| !is_end(code) && !others.contains(code))
}

/// Asking at once again may succeed.
pub(crate) fn is_passing(error: &Error) -> bool {
    let passing = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::INVALID_SQL_STATEMENT_NAME,
        // A partition came or went.
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INTERNAL_ERROR,
    ];
    error.code().is_some_and(|code| passing.contains(code))
}

/// The server ends the connection: class 57, operator intervention, but for a cancelled statement.
fn is_end(code: &SqlState) -> bool {
    code.code().starts_with("57P") || code.code().starts_with("08")
}

/// Classes that no waiting changes: features, data, constraints, rights, names, syntax.
fn refuses(code: &SqlState) -> bool {
    let classes = ["0A", "22", "23", "28", "3D", "3F", "42"];
    classes.iter().any(|class| code.code().starts_with(class))
}
