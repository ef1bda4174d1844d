//! `once_by_key` of iterators and, with the feature `stream`, of streams.

use std::time::Duration;

use onceonly::{Dedup, Error, OnceIterator as _, Scope};

fn store() -> Dedup {
    Dedup::builder().window(Duration::from_secs(3600)).in_memory().unwrap()
}

#[derive(Debug, PartialEq, Clone, Copy)]
struct Item(u64, &'static str);

const ITEMS: [Item; 4] = [Item(1, "a"), Item(2, "b"), Item(1, "c"), Item(3, "d")];

/// Not `Clone`-able keys of the item: an owned one each.
fn key(item: &Item) -> [u8; 8] {
    item.0.to_le_bytes()
}

fn names(items: impl Iterator<Item = Item>, scope: &Scope) -> Vec<&'static str> {
    items.once_by_key(scope, key).map(|item| item.unwrap().1).collect()
}

#[test]
fn the_first_item_of_a_key_passes() {
    let store = store();
    assert_eq!(names(ITEMS.into_iter(), &store), ["a", "b", "d"]);
    assert_eq!(names(ITEMS.into_iter(), &store), [""; 0]);
    // Another scope knows nothing of it.
    assert_eq!(names(ITEMS.into_iter(), &store.scope("other")), ["a", "b", "d"]);
}

#[test]
fn keys_may_borrow_where_items_are_references() {
    let store = store();
    let lines = String::from("one two one");
    let once = lines.split(' ').once_by_key(&store, |word| *word);
    assert_eq!(once.map(Result::unwrap).collect::<Vec<&str>>(), ["one", "two"]);
}

#[test]
fn nothing_is_marked_before_it_is_asked_for() {
    let store = store();
    let mut once = ITEMS.into_iter().once_by_key(&store, key);
    assert_eq!(once.size_hint(), (0, Some(4)));
    assert_eq!(once.next().unwrap().unwrap(), ITEMS[0]);
    assert!(store.contains(key(&ITEMS[0])).unwrap());
    assert!(!store.contains(key(&ITEMS[1])).unwrap());
}

#[test]
fn an_error_gives_the_item_back_and_does_not_mark_it() {
    let store = store();
    let claim = store.claim(key(&ITEMS[1])).unwrap();
    let decided: Vec<_> = ITEMS.into_iter().once_by_key(&store, key).collect();
    drop(claim);
    let mut passed = Vec::new();
    let mut undecided = Vec::new();
    for item in decided {
        match item {
            Ok(item) => passed.push(item),
            Err(failed) => {
                assert!(std::error::Error::source(&failed).is_some());
                let (item, error) = failed.into_parts();
                assert!(matches!(error, Error::InFlight { .. }), "{error}");
                undecided.push(item);
            }
        }
    }
    assert_eq!(passed, [ITEMS[0], ITEMS[3]]);
    assert_eq!(undecided, [ITEMS[1]]);
    // Asked again, it is what it would have been.
    assert_eq!(names(undecided.into_iter(), &store), ["b"]);
}

#[cfg(feature = "stream")]
mod stream {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use futures_core::Stream;
    use onceonly::OnceStream as _;

    use super::*;

    /// Items with a pause before each.
    struct Slow {
        items: std::vec::IntoIter<Item>,
        paused: bool,
    }

    impl Stream for Slow {
        type Item = Item;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Item>> {
            self.paused = !self.paused;
            if self.paused { Poll::Pending } else { Poll::Ready(self.items.next()) }
        }
    }

    fn slow() -> Slow {
        Slow { items: ITEMS.to_vec().into_iter(), paused: false }
    }

    fn drain<S: Stream + Unpin>(mut stream: S) -> Vec<S::Item> {
        let mut context = Context::from_waker(Waker::noop());
        let mut items = Vec::new();
        loop {
            match Pin::new(&mut stream).poll_next(&mut context) {
                Poll::Ready(Some(item)) => items.push(item),
                Poll::Ready(None) => return items,
                Poll::Pending => {}
            }
        }
    }

    #[test]
    fn the_first_item_of_a_key_passes() {
        let store = store();
        let once = drain(slow().once_by_key(&store, key));
        assert_eq!(
            once.into_iter().map(|item| item.unwrap().1).collect::<Vec<_>>(),
            ["a", "b", "d"]
        );
    }

    #[test]
    fn an_error_gives_the_item_back() {
        let store = store();
        store.close().unwrap();
        let stream = pin!(slow());
        let undecided = drain(stream.once_by_key(&store, key));
        let undecided = undecided.into_iter().map(|item| item.unwrap_err().into_parts());
        let (items, errors): (Vec<_>, Vec<_>) = undecided.unzip();
        assert_eq!(items, ITEMS);
        assert!(errors.iter().all(|error| matches!(error, Error::Closed)));
    }
}
