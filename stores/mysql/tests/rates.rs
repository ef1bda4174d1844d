//! How fast it is: `cargo test --release -p onceonly-mysql --test rates -- --ignored --nocapture`.

mod server;

use std::io::Write;

use server::Database;

#[test]
#[ignore = "takes a while, and measures"]
fn rates() {
    let database = Database::new();
    let rates = onceonly_sql_tests::rates(&database.connect(), 300_000);
    std::io::stdout().write_all(rates.as_bytes()).unwrap();
}
