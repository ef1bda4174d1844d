//! How fast it is: `cargo run --release -p onceonly-mysql --example rates`.

#[path = "../tests/server/mod.rs"]
mod server;

use std::io::Write;

use server::Database;

fn main() {
    let database = Database::new();
    let rates = onceonly_sql_tests::rates(&database.connect(), 300_000);
    std::io::stdout().write_all(rates.as_bytes()).unwrap();
}
