//! The examples run.

#[allow(dead_code, reason = "its main is for who runs it alone")]
#[path = "../examples/inbox_rusqlite.rs"]
mod inbox_rusqlite;

#[test]
fn the_inbox_books_once() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(inbox_rusqlite::run(&dir.path().join("app.db")).unwrap(), 570);
}
