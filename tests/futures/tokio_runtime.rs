//! Under tokio, with time-outs that drop futures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::{Outcome, Verdict};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::{granted, shared, synced};

#[test]
fn tasks_that_time_out_leave_nothing_behind() {
    let server = MemoryAuthority::new();
    let remote = shared(&server).in_memory().unwrap();
    let (local, _dir) = synced();
    server.delay(Duration::from_millis(8));
    for store in [remote, local] {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let store = &store;
        runtime.block_on(async {
            for round in 0..60_u64 {
                let (key, claimed) = (format!("{round}"), format!("claimed {round}"));
                let patience = Duration::from_millis(round % 20);
                if timeout(patience, store.observe_async(&key)).await.is_err() {
                    let again = store.observe_async(&key).await.unwrap();
                    assert_eq!(again, Verdict::New, "dropped after {patience:?}");
                }
                assert_eq!(store.observe_async(&key).await.unwrap(), Verdict::Duplicate);
                let claim = timeout(patience, store.claim_async(&claimed)).await;
                let claim = match claim {
                    Ok(claim) => claim,
                    Err(_) => store.claim_async(&claimed).await,
                };
                granted(claim.unwrap()).commit_async().await.unwrap();
            }
        });
    }
}

#[test]
fn a_task_that_is_aborted_in_its_work_is_followed_by_the_redelivery() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let server = MemoryAuthority::new();
    let store = shared(&server).in_memory().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    runtime.block_on(async {
        for attempt in 0..3 {
            let runs = Arc::clone(&runs);
            let task = tokio::spawn(store.process_once_async("1", move |_claim| async move {
                runs.fetch_add(1, Ordering::SeqCst);
                if attempt < 2 {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                Ok::<_, std::io::Error>(attempt)
            }));
            if attempt < 2 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            } else {
                assert!(matches!(task.await.unwrap(), Ok(Outcome::Done(2))));
            }
        }
    });
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}
