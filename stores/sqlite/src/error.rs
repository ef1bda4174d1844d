//! What an error of SQLite means to the engine.

use onceonly::authority::AuthorityError;
use rusqlite::{Error, ErrorCode};

/// An error before the commit: the transaction is rolled back, so nothing was applied.
pub(crate) fn before_commit(error: Error) -> AuthorityError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory
            | ErrorCode::SystemIoFailure
            | ErrorCode::SchemaChanged
            | ErrorCode::CannotOpen,
        ) => AuthorityError::transient(error),
        _ => AuthorityError::refused(error),
    }
}

/// An error of the commit. The log may have all of the transaction even if its sync failed: then it
/// is applied when the file is next opened after a crash.
pub(crate) fn on_commit(error: Error) -> AuthorityError {
    if is_busy(&error) {
        AuthorityError::transient(error)
    } else {
        AuthorityError::undecided(error)
    }
}

/// Another connection has the lock that was needed.
pub(crate) fn is_busy(error: &Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
