//! The suite that every authority has to pass.

mod server;

use server::Database;

#[test]
fn conforms() {
    let database = Database::new();
    onceonly::authority::conformance::run(|| database.connect()).unwrap();
}
