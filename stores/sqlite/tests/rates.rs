//! How fast it is: `cargo test --release -p onceonly-sqlite --test rates -- --ignored --nocapture`.

use std::io::Write;

use onceonly_sqlite::SqliteAuthority;

#[test]
#[ignore = "takes a while, and measures"]
fn rates() {
    let dir = tempfile::tempdir().unwrap();
    let authority = SqliteAuthority::open(dir.path().join("seen.db")).unwrap();
    let rates = onceonly_sql_tests::rates(&authority, 300_000);
    std::io::stdout().write_all(rates.as_bytes()).unwrap();
}
