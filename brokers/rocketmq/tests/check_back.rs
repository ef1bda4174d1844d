//! What the server is answered, whenever it asks. No server is needed for that.

use account::{Books, Message};
use onceonly_rocketmq::{Decision, Shop};

#[test]
fn an_order_is_delivered_exactly_when_it_is_placed() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path()).unwrap();
    let order = Message::numbered(1);
    assert_eq!(shop.check(&order).unwrap(), Decision::Drop, "nobody is at it");
    let guard = shop.begin(&order).unwrap().expect("a check-back does not take the order");
    assert_eq!(shop.check(&order).unwrap(), Decision::Unknown);
    assert!(shop.begin(&order).unwrap().is_none(), "a second producer at the same time");
    shop.place(&order, guard).unwrap();
    assert_eq!(shop.check(&order).unwrap(), Decision::Deliver);
    assert!(shop.begin(&order).unwrap().is_none(), "placed once");
}

#[test]
fn a_producer_that_gave_up_leaves_nothing_to_deliver() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path()).unwrap();
    let order = Message::numbered(1);
    drop(shop.begin(&order).unwrap());
    assert_eq!(shop.check(&order).unwrap(), Decision::Drop);
}

/// Dead between the books and the mark: the books decide, and the mark is made up for.
#[test]
fn an_order_that_is_in_the_books_only_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let order = Message::numbered(1);
    Books::open(dir.path()).unwrap().apply([(&order, 1)].into_iter()).unwrap();
    let shop = Shop::open(dir.path()).unwrap();
    assert_eq!(shop.check(&order).unwrap(), Decision::Deliver);
    assert!(shop.begin(&order).unwrap().is_none(), "it is not placed again");
    assert_eq!(Books::tally(dir.path()).unwrap()[&order.id], [order.amount]);
}

/// Slower than its lease: a check-back has dropped the message, so the order may not be placed.
#[test]
fn an_order_whose_message_was_dropped_is_not_placed() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Shop::open(dir.path()).unwrap();
    let order = Message::numbered(1);
    let guard = shop.begin(&order).unwrap().unwrap();
    Books::open(dir.path()).unwrap().fence(&order, guard.token() + 1).unwrap();
    shop.place(&order, guard).unwrap_err();
    assert_eq!(shop.check(&order).unwrap(), Decision::Drop);
    // The next producer has a higher token.
    let guard = shop.begin(&order).unwrap().unwrap();
    shop.place(&order, guard).unwrap();
    assert_eq!(shop.check(&order).unwrap(), Decision::Deliver);
}
