//! How fast it is: `cargo run --release -p onceonly-sqlite --example rates`.

use std::io::Write;

use onceonly_sqlite::SqliteAuthority;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let authority = SqliteAuthority::open(dir.path().join("seen.db")).unwrap();
    let rates = onceonly_sql_tests::rates(&authority, 300_000);
    std::io::stdout().write_all(rates.as_bytes()).unwrap();
}
