//! What an error of the server or its client means to the engine.

use mysql_async::Error;
use onceonly::authority::AuthorityError;

/// The lock wait ended, a deadlock, a time-out of the statement, a table that was made anew
/// meanwhile.
const GAVE_UP: [u16; 7] = [1205, 1213, 1317, 1412, 1969, 3024, 3572];
/// No more connections, memory, disk or log; starting, stopping, not the primary.
const NOT_NOW: [u16; 17] = [
    1021, 1037, 1038, 1040, 1041, 1047, 1053, 1077, 1114, 1129, 1158, 1159, 1180, 1203, 1226, 1290,
    1836,
];
/// There is no such table.
const NO_TABLE: u16 = 1146;

/// What the server said of a statement, or what kept it from saying anything.
pub(crate) fn of_statement(error: Error) -> AuthorityError {
    match code(&error) {
        // The transaction is rolled back, by the server or with the connection.
        Some(code) if GAVE_UP.contains(&code) || NOT_NOW.contains(&code) => {
            AuthorityError::transient(error)
        }
        Some(_) => AuthorityError::refused(error),
        None => AuthorityError::undecided(error),
    }
}

/// Why there is no connection: nothing was sent over it.
pub(crate) fn of_connecting(error: Error) -> AuthorityError {
    match code(&error) {
        Some(code) if !NOT_NOW.contains(&code) => AuthorityError::refused(error),
        _ => AuthorityError::transient(error),
    }
}

/// Asking at once again may succeed.
pub(crate) fn is_passing(error: &Error) -> bool {
    match error {
        // It was dropped because all in it was over.
        Error::Server(error) if error.code == NO_TABLE => {
            error.message.contains("onceonly_chunks_")
        }
        _ => code(error).is_some_and(|code| [1205, 1213, 1412, 3572].contains(&code)),
    }
}

fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Server(error) => Some(error.code),
        _ => None,
    }
}
