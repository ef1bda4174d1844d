//! `process_once_async`: works, fails, panics, is dropped.

use std::convert::Infallible;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::{Claim, Dedup, Outcome, ProcessError};

use crate::executor::{Boxed, at_once, block_on, poll_once};
use crate::{alone, eventually, shared, synced};

fn stores() -> (MemoryAuthority, tempfile::TempDir, [Dedup; 3]) {
    let server = MemoryAuthority::new();
    let (synced, dir) = synced();
    let stores = [alone(), synced, shared(&server).in_memory().unwrap()];
    (server, dir, stores)
}

#[test]
fn work_that_succeeds_marks_and_what_it_keeps_answers_duplicates() {
    let (_server, _dir, stores) = stores();
    for store in &stores {
        let work = |claim: std::sync::Arc<onceonly::ClaimGuard>| async move {
            assert!(claim.token() > 0);
            claim.renew_async().await?;
            claim.keep("receipt")?;
            Ok::<_, onceonly::Error>(1)
        };
        let done = block_on(store.process_once_async("1", work));
        assert!(matches!(done, Ok(Outcome::Done(1))), "{done:?}");
        let again = block_on(store.process_once_async("1", work));
        match again {
            Ok(Outcome::Duplicate { result, .. }) => assert_eq!(result.unwrap(), b"receipt"),
            other => panic!("{other:?}"),
        }
        let held = store.claim("2").unwrap();
        let busy = at_once(store.process_once_async("2", |_| async { Ok::<_, Infallible>(()) }));
        assert!(matches!(busy, Ok(Outcome::InFlight { .. })));
        drop(held);
    }
}

#[test]
fn work_that_fails_or_panics_gives_the_key_back() {
    let (_server, _dir, stores) = stores();
    for store in &stores {
        let failed = block_on(store.process_once_async("1", |_| async { Err::<(), _>("no") }));
        assert!(matches!(failed, Err(ProcessError::Work("no"))));
        assert!(matches!(store.claim("1").unwrap(), Claim::Granted(_)));
        let panics = [true, false].map(|early| {
            let work = move |_| {
                assert!(!early, "before its future");
                async move {
                    assert!(early, "in its future");
                    Ok::<(), Infallible>(())
                }
            };
            catch_unwind(AssertUnwindSafe(|| block_on(store.process_once_async("1", work))))
        });
        assert!(panics.iter().all(Result::is_err));
        assert!(matches!(store.claim("1").unwrap(), Claim::Granted(_)));
    }
}

#[test]
fn dropped_in_its_work_it_gives_the_key_back_at_once() {
    let (_server, _dir, stores) = stores();
    for store in &stores {
        let (begun, has_begun) = std::sync::mpsc::channel();
        let work = move |claim| async move {
            begun.send(()).unwrap();
            pending::<()>().await;
            drop(claim);
            Ok::<_, Infallible>(())
        };
        let mut future: Boxed<_> = Box::pin(store.process_once_async("1", work));
        eventually("the work begins", || {
            assert!(poll_once(&mut future).is_pending());
            has_begun.try_recv().is_ok()
        });
        assert!(matches!(store.claim("1").unwrap(), Claim::InFlight { .. }));
        drop(future);
        assert!(matches!(store.claim("1").unwrap(), Claim::Granted(_)));
    }
}

#[test]
fn dropped_when_the_work_is_done_its_commit_goes_on() {
    let server = MemoryAuthority::new();
    let store = shared(&server).in_memory().unwrap();
    let (done, is_done) = std::sync::mpsc::channel();
    let work = move |_| async move {
        done.send(()).unwrap();
        Ok::<_, Infallible>(())
    };
    server.delay(Duration::from_millis(50));
    let mut future: Boxed<_> = Box::pin(store.process_once_async("1", work));
    eventually("the work is done", || {
        assert!(poll_once(&mut future).is_pending());
        is_done.try_recv().is_ok()
    });
    drop(future);
    eventually("it is marked", || matches!(store.claim("1").unwrap(), Claim::Duplicate { .. }));
}
