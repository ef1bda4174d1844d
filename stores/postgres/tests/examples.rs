//! The examples run.

#[allow(dead_code, reason = "its main is for who runs it alone")]
#[path = "../examples/inbox_sqlx.rs"]
mod inbox_sqlx;
mod server;

#[test]
fn the_inbox_books_once() {
    let schema = server::Schema::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(inbox_sqlx::run(server::url(), &schema.name)).unwrap(), 570);
}
