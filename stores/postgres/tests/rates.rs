//! How fast it is: `cargo test --release -p onceonly-postgres --test rates -- --ignored
//! --nocapture`.

mod server;

use std::io::Write;

use server::Schema;

#[test]
#[ignore = "takes a while, and measures"]
fn rates() {
    let schema = Schema::new();
    let rates = onceonly_sql_tests::rates(&schema.connect(), 300_000);
    std::io::stdout().write_all(rates.as_bytes()).unwrap();
}
