//! How fast it is: `cargo run --release -p onceonly-postgres --example rates`.

#[path = "../tests/server/mod.rs"]
mod server;

use std::io::Write;

use server::Schema;

fn main() {
    let schema = Schema::new();
    let rates = onceonly_sql_tests::rates(&schema.connect(), 300_000);
    std::io::stdout().write_all(rates.as_bytes()).unwrap();
}
