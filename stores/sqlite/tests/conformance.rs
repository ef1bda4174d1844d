//! The suite that every authority has to pass.

use onceonly_sqlite::SqliteAuthority;

#[test]
fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    onceonly::authority::conformance::run(|| SqliteAuthority::open(&file).unwrap()).unwrap();
}

#[test]
fn conforms_without_waiting_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    let connect = || SqliteAuthority::builder(&file).survives_power_loss(false).open().unwrap();
    onceonly::authority::conformance::run(connect).unwrap();
}
