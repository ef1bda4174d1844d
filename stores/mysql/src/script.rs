//! Statements that are sent together, and what came back: one round trip, whatever there is to do.
//!
//! Values are written into the text as numbers and hexadecimal digits, so no text of a user gets
//! there.

use std::fmt::Write as _;

use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Error, Row};

/// The server's clock. Unlike `NOW()`, it goes on within a statement and a transaction. Sessions
/// are in UTC.
pub(crate) const NOW: &str =
    "SET @now = TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', SYSDATE(6))";

/// Statements in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) text: String,
    pub(crate) statements: usize,
}

impl Script {
    /// Adds a statement; returns its place.
    pub(crate) fn push(&mut self, statement: &str) -> usize {
        self.text += statement;
        self.text += ";\n";
        self.statements += 1;
        self.statements - 1
    }

    /// Adds all of another script; returns the place of its first statement.
    pub(crate) fn append(&mut self, other: &Script) -> usize {
        self.text += &other.text;
        self.statements += other.statements;
        self.statements - other.statements
    }

    /// Runs all of it, up to the first error.
    pub(crate) async fn run(&self, conn: &mut Conn) -> Ran {
        let mut ran = Ran { sets: Vec::with_capacity(self.statements), error: None };
        // The client tells the last of the statements only if it has rows.
        let text = format!("{}SELECT 1", self.text);
        let mut result = match conn.query_iter(text).await {
            Ok(result) => result,
            Err(error) => return Ran { error: Some(error), ..ran },
        };
        while ran.sets.len() < self.statements {
            let mut set = Set { matched: result.affected_rows(), rows: Vec::new() };
            let error = loop {
                match result.next().await {
                    Ok(Some(row)) => set.rows.push(row),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            // An error ends the set, or is that of the next statement; no script ends with rows.
            ran.sets.push(set);
            if error.is_some() {
                ran.error = error;
                return ran;
            }
        }
        ran.error = result.drop_result().await.err();
        ran
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Of each statement up to the error.
    pub(crate) sets: Vec<Set>,
    pub(crate) error: Option<Error>,
}

/// Of one statement.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) rows: Vec<Row>,
    /// Rows that an update found, changed or not.
    pub(crate) matched: u64,
}

/// A column, or the least value of its type where it is null or of another type.
pub(crate) fn column<T: FromValue + Default>(row: &Row, at: usize) -> T {
    row.get_opt(at).and_then(Result::ok).unwrap_or_default()
}

/// Bytes as they are written in a statement.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2 + 3);
    text += "x'";
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text + "'"
}

/// A list for `IN`.
pub(crate) fn list<'a>(items: impl Iterator<Item = &'a [u8; 16]>) -> String {
    items.map(|item| hex(item)).collect::<Vec<_>>().join(", ")
}
