//! The suite that every authority has to pass.

mod server;

use server::Schema;

#[test]
fn conforms() {
    let schema = Schema::new();
    onceonly::authority::conformance::run(|| schema.connect()).unwrap();
}
