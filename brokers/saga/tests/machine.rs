//! "Advance this order to PAID at most once": repeated and late transitions are answered as such.

use std::time::Duration;

use onceonly::Dedup;
use onceonly_saga::{Advance, Attempt, Cancel, Desk, Ending, Place, Saga, Shop, State, Taken};

const ORDER: Attempt = Attempt { order: 1, number: 1 };

fn in_payment(shop: &mut Shop) {
    shop.stock(10).unwrap();
    shop.take(ORDER, 1).unwrap();
    assert_eq!(shop.reserve(ORDER, 2).unwrap(), Advance::Applied);
    assert_eq!(shop.begin_payment(ORDER, 3).unwrap(), Advance::Applied);
}

#[test]
fn paid_at_most_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(&Place::sqlite(dir.path())).unwrap();
    in_payment(&mut shop);
    assert_eq!(shop.cancel(1).unwrap(), Cancel::InPayment);
    assert_eq!(shop.end_payment(ORDER, true, 3).unwrap(), Advance::Applied);
    assert_eq!(shop.end_payment(ORDER, true, 3).unwrap(), Advance::Repeated);
    let late = Advance::Late { state: State::Paid };
    assert_eq!(shop.end_payment(ORDER, false, 4).unwrap(), late);
    assert_eq!(shop.reserve(ORDER, 5).unwrap(), late);
    assert_eq!(shop.cancel(1).unwrap(), Cancel::Late);
    shop.take(Attempt { number: 2, ..ORDER }, 6).unwrap();
    assert_eq!(shop.look(1).unwrap(), Some((ORDER, State::Paid)));
}

#[test]
fn an_owner_with_an_older_token_is_late() {
    let dir = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(&Place::sqlite(dir.path())).unwrap();
    in_payment(&mut shop);
    assert_eq!(shop.end_payment(ORDER, false, 9).unwrap(), Advance::Applied);
    let late = Advance::Late { state: State::Cancelling };
    // The same transition, by who had the step before 9.
    assert_eq!(shop.end_payment(ORDER, false, 3).unwrap(), late);
    assert_eq!(shop.end_payment(ORDER, true, 3).unwrap(), late);
    assert_eq!(shop.release(ORDER, 3).unwrap(), late);
    assert_eq!(shop.release(ORDER, 10).unwrap(), Advance::Applied);
}

#[test]
fn a_cancelled_order_may_be_taken_again_and_a_paid_one_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let dedup = Dedup::builder().window(Duration::from_secs(60)).in_memory().unwrap();
    let (saga, mut desk) =
        (Saga::new(dedup, || {}), Desk::open(&Place::sqlite(dir.path())).unwrap());
    desk.shop.stock(10).unwrap();
    // The provider declines every attempt whose order and number add up to a multiple of four.
    assert_eq!(saga.take(&mut desk, 3).unwrap(), Taken::Ended(Ending::Cancelled));
    assert_eq!(desk.shop.cancel(3).unwrap(), Cancel::Repeated);
    assert_eq!(saga.take(&mut desk, 3).unwrap(), Taken::Ended(Ending::Paid));
    assert_eq!(saga.take(&mut desk, 3).unwrap(), Taken::Paid);
    assert_eq!(desk.shop.look(3).unwrap(), Some((Attempt { order: 3, number: 2 }, State::Paid)));
    assert_eq!(desk.provider.movements().unwrap(), [Attempt { order: 3, number: 2 }]);
}
