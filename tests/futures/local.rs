//! What is decided here is ready in the first poll.

use std::convert::Infallible;
use std::task::Poll;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::{Claim, Dedup, Error, Outcome, Ownership, Verdict};

use crate::executor::{Boxed, at_once, block_on, poll_once};
use crate::{WINDOW, alone, granted, shared, synced};

#[test]
fn futures_are_send_and_own_all_they_need() {
    fn check<F: Future + Send + 'static>(future: F) -> F {
        future
    }
    let store = alone();
    drop(check(store.observe_async(String::from("1").as_str())));
    drop(check(store.observe_batch_async(&[String::from("1").as_str()])));
    drop(check(store.claim_async(b"1")));
    let work = |_| async { Ok::<_, Infallible>(()) };
    drop(check(store.process_once_async(String::from("1").as_str(), work)));
    let guard = granted(store.claim("2").unwrap());
    drop(check(guard.renew_async()));
    drop(check(guard.commit_async()));
    assert_eq!(store.observe("1").unwrap(), Verdict::New, "nothing is done before the first poll");
    assert_eq!(store.observe("2").unwrap(), Verdict::New, "so the claim was abandoned");
}

#[test]
fn all_calls_of_a_store_of_its_own_are_ready_at_once() {
    let store = alone();
    assert_eq!(at_once(store.observe_async("1")).unwrap(), Verdict::New);
    assert_eq!(at_once(store.observe_async("1")).unwrap(), Verdict::Duplicate);
    let batch = at_once(store.observe_batch_async(&["1", "2", "2"])).unwrap();
    assert_eq!(batch, [Verdict::Duplicate, Verdict::New, Verdict::Duplicate]);
    let guard = granted(at_once(store.claim_async("3")).unwrap());
    assert!(matches!(at_once(store.claim_async("3")).unwrap(), Claim::InFlight { .. }));
    assert!(matches!(at_once(store.observe_async("3")), Err(Error::InFlight { .. })));
    assert!(at_once(store.observe_batch_async(&["4", "3"])).is_err());
    at_once(guard.renew_async()).unwrap();
    at_once(guard.commit_async()).unwrap();
    assert!(matches!(at_once(store.claim_async("3")).unwrap(), Claim::Duplicate { .. }));
    let done = at_once(store.process_once_async("5", |_| async { Ok::<_, Infallible>(7) }));
    assert!(matches!(done, Ok(Outcome::Done(7))));
    store.close().unwrap();
    assert!(matches!(at_once(store.observe_async("1")), Err(Error::Closed)));
}

#[test]
fn what_is_on_the_disk_is_ready_at_once_and_the_rest_waits_for_it() {
    let (store, _dir) = synced();
    assert_eq!(store.observe("1").unwrap(), Verdict::New);
    assert_eq!(at_once(store.observe_async("1")).unwrap(), Verdict::Duplicate);
    let mut new: Boxed<_> = Box::pin(store.observe_async("2"));
    let mut again: Boxed<_> = Box::pin(store.observe_async("2"));
    assert!(poll_once(&mut new).is_pending());
    // The second is ready at once if the disk was quick.
    let early = poll_once(&mut again);
    assert_eq!(block_on(new).unwrap(), Verdict::New);
    match early {
        Poll::Ready(early) => assert_eq!(early.unwrap(), Verdict::Duplicate),
        Poll::Pending => assert_eq!(block_on(again).unwrap(), Verdict::Duplicate),
    }
    let guard = granted(block_on(store.claim_async("3")).unwrap());
    block_on(guard.renew_async()).unwrap();
    block_on(guard.commit_async()).unwrap();
    assert!(matches!(at_once(store.claim_async("3")).unwrap(), Claim::Duplicate { .. }));
    let batch = block_on(store.observe_batch_async(&["3", "4", "5"])).unwrap();
    assert_eq!(batch, [Verdict::Duplicate, Verdict::New, Verdict::New]);
}

#[test]
fn a_shared_store_answers_at_once_what_it_knows() {
    let server = MemoryAuthority::new();
    let store = shared(&server).in_memory().unwrap();
    assert_eq!(block_on(store.observe_async("1")).unwrap(), Verdict::New);
    let guard = granted(block_on(store.claim_async("2")).unwrap());
    let calls = server.calls().rows;
    assert_eq!(at_once(store.observe_async("1")).unwrap(), Verdict::Duplicate);
    assert!(matches!(at_once(store.observe_async("2")), Err(Error::InFlight { .. })));
    assert!(matches!(at_once(store.claim_async("2")).unwrap(), Claim::InFlight { .. }));
    assert!(matches!(at_once(store.claim_async("1")).unwrap(), Claim::Duplicate { .. }));
    assert_eq!(at_once(store.observe_batch_async(&["1", "1"])).unwrap(), [Verdict::Duplicate; 2]);
    assert_eq!(server.calls().rows, calls);
    block_on(guard.renew_async()).unwrap();
    block_on(guard.commit_async()).unwrap();
    assert!(matches!(at_once(store.claim_async("2")).unwrap(), Claim::Duplicate { .. }));
    let other = shared(&server).in_memory().unwrap();
    let batch = block_on(other.observe_batch_async(&["1", "2", "3", "3"])).unwrap();
    let (new, duplicate) = (Verdict::New, Verdict::Duplicate);
    assert_eq!(batch, [duplicate, duplicate, new, duplicate]);
}

#[test]
fn an_owner_reads_what_it_does_not_know_and_then_is_ready_at_once() {
    let server = MemoryAuthority::new();
    let open = || {
        // So few that they are read together.
        let builder = Dedup::builder().window(WINDOW).expected_keys(1_000).secret([7; 32]);
        let builder = builder.authority(server.clone(), Ownership::Exclusive);
        builder.authority_space("orders").in_memory().unwrap()
    };
    let before = open();
    assert_eq!(at_once(before.observe_async("1")).unwrap(), Verdict::New);
    before.close().unwrap();
    let store = open();
    let mut asks: Boxed<_> = Box::pin(store.observe_async("1"));
    assert!(poll_once(&mut asks).is_pending(), "it is read first");
    assert_eq!(block_on(asks).unwrap(), Verdict::Duplicate);
    assert_eq!(block_on(store.observe_batch_async(&["1", "2"])).unwrap()[1], Verdict::New);
    assert_eq!(at_once(store.observe_async("3")).unwrap(), Verdict::New, "all is read");
    let guard = granted(at_once(store.claim_async("4")).unwrap());
    at_once(guard.commit_async()).unwrap();
    store.close().unwrap();
    let next = open();
    next.warm_up(|_| {}).unwrap();
    for key in ["1", "2", "3", "4"] {
        assert_eq!(at_once(next.observe_async(key)).unwrap(), Verdict::Duplicate, "{key}");
    }
}

#[test]
fn shadow_mode_lets_futures_through_too() {
    let store = alone().shadow(true);
    assert_eq!(at_once(store.observe_async("1")).unwrap(), Verdict::New);
    assert_eq!(at_once(store.observe_async("1")).unwrap(), Verdict::New);
    assert_eq!(at_once(store.observe_batch_async(&["1", "2"])).unwrap(), [Verdict::New; 2]);
    let ghost = granted(at_once(store.claim_async("1")).unwrap());
    assert!(ghost.shadowed().is_some());
    at_once(ghost.renew_async()).unwrap();
    at_once(ghost.commit_async()).unwrap();
    let done = at_once(store.process_once_async("1", |claim| async move {
        Ok::<_, Infallible>(claim.shadowed().is_some())
    }));
    assert!(matches!(done, Ok(Outcome::Done(true))));
    let held = granted(store.claim("9").unwrap());
    let batch = at_once(store.observe_batch_async(&["8", "9", "1"])).unwrap();
    assert_eq!(batch, [Verdict::New; 3]);
    drop(held);
    assert_eq!(at_once(store.shadow(false).observe_async("8")).unwrap(), Verdict::Duplicate);
}

#[test]
fn keys_of_before_are_asked_for_by_futures_too() {
    let server = MemoryAuthority::new();
    server.mark_legacy("1", WINDOW);
    let store = shared(&server).in_memory().unwrap();
    let (new, duplicate) = (Verdict::New, Verdict::Duplicate);
    assert_eq!(block_on(store.observe_async("1")).unwrap(), duplicate);
    assert_eq!(block_on(store.observe_async("2")).unwrap(), new);
    assert_eq!(at_once(store.observe_async("2")).unwrap(), duplicate, "it is known here");
    let batch = block_on(store.observe_batch_async(&["3", "1", "3"])).unwrap();
    assert_eq!(batch, [new, duplicate, duplicate]);
    assert!(matches!(block_on(store.claim_async("1")).unwrap(), Claim::Duplicate { .. }));
    assert!(matches!(block_on(store.claim_async("4")).unwrap(), Claim::Granted(_)));
    let done = block_on(store.process_once_async("1", |_| async { Ok::<_, Infallible>(()) }));
    assert!(matches!(done, Ok(Outcome::Duplicate { .. })));
}
