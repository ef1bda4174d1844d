//! Many futures on one thread, and an authority that is slow.

use std::time::{Duration, Instant};

use onceonly::authority::memory::MemoryAuthority;
use onceonly::{Claim, CommitError, Error, OnOutage, Verdict};

use crate::executor::{Boxed, block_on, join_all};
use crate::{granted, shared, synced};

#[test]
fn a_thousand_futures_on_one_thread_share_a_few_calls_and_have_one_winner_a_key() {
    let server = MemoryAuthority::new();
    let store = shared(&server).in_memory().unwrap();
    server.delay(Duration::from_millis(20));
    let futures: Vec<Boxed<_>> =
        (0..1_000).map(|n| Box::pin(store.observe_async(format!("{}", n % 400))) as _).collect();
    let begun = Instant::now();
    let said: Vec<Verdict> = join_all(futures).into_iter().map(Result::unwrap).collect();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(said.iter().filter(|said| **said == Verdict::New).count(), 400);
    let calls = server.calls();
    assert!(calls.rows <= 20, "{calls:?}");
    assert_eq!(server.live_rows("orders"), 400);

    let futures: Vec<Boxed<onceonly::Result<Claim>>> =
        (0..1_000).map(|n| Box::pin(store.claim_async(format!("claim {n}"))) as _).collect();
    let guards = join_all(futures).into_iter().map(|claim| granted(claim.unwrap()));
    let commits: Vec<Boxed<Result<(), CommitError>>> =
        guards.map(|guard| Box::pin(guard.commit_async()) as _).collect();
    assert!(join_all(commits).iter().all(Result::is_ok));
    assert!(server.calls().rows <= 80, "{:?}", server.calls());
}

#[test]
fn a_thousand_futures_share_a_few_syncs() {
    let (store, _dir) = synced();
    let futures: Vec<Boxed<_>> =
        (0..1_000).map(|n| Box::pin(store.observe_async(format!("{}", n % 400))) as _).collect();
    let said: Vec<Verdict> = join_all(futures).into_iter().map(Result::unwrap).collect();
    assert_eq!(said.iter().filter(|said| **said == Verdict::New).count(), 400);
}

#[test]
fn the_deadline_is_kept_by_futures_that_wait_for_their_turn_too() {
    let server = MemoryAuthority::new();
    let deadline = Duration::from_millis(100);
    let store = shared(&server).authority_deadline(deadline).in_memory().unwrap();
    server.delay(Duration::from_secs(5));
    let begun = Instant::now();
    let ask = |n: u32| Box::pin(store.observe_async(format!("{n}"))) as Boxed<_>;
    let said = join_all((0..200).map(ask).collect());
    assert!(
        said.iter()
            .all(|said| matches!(said, Err(Error::Authority { .. } | Error::Undecided { .. })))
    );
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    server.heal();
    let bold = store.on_outage(OnOutage::AssumeNew);
    assert_eq!(block_on(bold.observe_async("another")).unwrap(), Verdict::New);
}

#[test]
fn a_store_that_is_closed_meanwhile_says_so() {
    let server = MemoryAuthority::new();
    let store = shared(&server).in_memory().unwrap();
    let future = store.observe_async("1");
    drop(store);
    assert!(matches!(block_on(future), Err(Error::Closed)));
}
