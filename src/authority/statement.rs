//! SQL of an authority for a transaction of the user's own.

use std::fmt;

/// How a database writes SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// PostgreSQL: parameters are `$1`, `$2`, ….
    Postgres,
    /// MySQL and MariaDB: parameters are `?`, in order.
    Mysql,
    /// SQLite: parameters are `?1`, `?2`, ….
    Sqlite,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Postgres => "PostgreSQL",
            Dialect::Mysql => "MySQL",
            Dialect::Sqlite => "SQLite",
        })
    }
}

/// A parameter of a statement. Clients bind each kind as the type of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlValue {
    /// A binary string (`bytea`, `varbinary`, `blob`).
    Bytes(Vec<u8>),
    /// A signed integer of 64 bits.
    Int(i64),
    /// Text.
    Text(String),
}

/// One statement and its parameters, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// The parameters.
    pub params: Vec<SqlValue>,
}
