//! A handle in a child that was forked refuses, writes nothing, and leaves the lock to its parent; a
//! store that the child opens itself works.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use onceonly::{Builder, Claim, ClaimGuard, Dedup, Durability, Error, Timestamp, Verdict};
use tempfile::TempDir;

const LEVELS: [Durability; 3] =
    [Durability::Process, Durability::Interval(Duration::from_secs(3600)), Durability::Sync];

fn builder() -> Builder {
    Dedup::builder().window(Duration::from_secs(3600)).expected_keys(100)
}

/// Runs `work` in a forked child; what it answers is what was wrong.
fn in_child(work: impl FnOnce() -> Result<(), String>) {
    // SAFETY: the child runs on this thread alone. It takes locks only of stores that no other
    // thread uses, and ends without unwinding into the test's frames.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "the system refuses a process");
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let code = match done {
            Ok(Ok(())) => 0,
            Ok(Err(wrong)) => {
                let _ = std::io::Write::write_all(&mut std::io::stderr(), wrong.as_bytes());
                1
            }
            Err(_) => 2,
        };
        // SAFETY: ends the process at once; nothing of the parent's is run.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is a place for an integer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");
}

fn refused<T, E: Into<Option<Error>>>(call: &str, result: Result<T, E>) -> Result<(), String> {
    match result.map_err(Into::into) {
        Err(Some(Error::Forked)) => Ok(()),
        Err(Some(other)) => Err(format!("{call}: {other}")),
        _ => Err(format!("{call} is not refused")),
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.file_name() != "CLOCK")
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn every_call(store: &Dedup, guard: &ClaimGuard) -> Result<(), String> {
    let keys = ["a", "b"];
    refused("observe", store.observe("a"))?;
    refused("observe_batch", store.observe_batch(&keys).map_err(|e| e.into_parts().1))?;
    refused("contains", store.contains("a"))?;
    refused("contains_batch", store.contains_batch(&keys))?;
    refused("forget", store.forget("a"))?;
    refused("claim", store.claim("c"))?;
    refused("claim_batch", store.claim_batch(&keys))?;
    refused("claim_wait", store.claim_wait("held", Instant::now()))?;
    refused("scope", store.scope("s").observe("a"))?;
    refused("explain", store.explain("a"))?;
    refused("claims", store.claims())?;
    refused("expired_claims", store.expired_claims())?;
    refused("sync", store.sync())?;
    refused("renew", guard.renew())?;
    refused("note", guard.note())?;
    store.prefetch("a");
    if store.stats().new != 0 || store.guaranteed_since() < Timestamp::from_unix_millis(1) {
        return Err("it tells what it cannot know".to_owned());
    }
    refused("close", store.close())
}

#[test]
fn a_handle_in_a_forked_child_refuses_and_changes_nothing() {
    for level in LEVELS {
        let dir = TempDir::new().unwrap();
        let store = builder().durability(level).open(dir.path()).unwrap();
        assert_eq!(store.observe("a").unwrap(), Verdict::New);
        let claimed = |key| match store.claim(key).unwrap() {
            Claim::Granted(guard) => guard,
            other => panic!("{other:?}"),
        };
        let (held, committed, batched) = (claimed("held"), claimed("done"), claimed("batched"));
        store.settle();
        let before = files(dir.path());
        let copies = (store.clone(), &held);
        in_child(|| {
            every_call(&copies.0, copies.1)?;
            match builder().open(dir.path()) {
                Err(Error::Locked { .. }) => {}
                other => return Err(format!("the lock is not held: {other:?}")),
            }
            Ok(())
        });
        assert!(files(dir.path()) == before, "the child wrote something");
        // Whatever the child drops, the parent keeps.
        let mut owned = Some((store.clone(), committed, batched));
        drop(store);
        in_child(|| {
            let (store, committed, batched) = owned.take().unwrap();
            refused("commit", committed.commit().map_err(|e| e.into_parts().1))?;
            let mut batch = store.commit_batch([batched]).into_iter();
            refused("commit_batch", batch.next().unwrap().map_err(|e| e.into_parts().1))?;
            drop(store);
            Ok(())
        });
        in_child(|| {
            // Abandons, and closes the last handle.
            drop(owned.take());
            Ok(())
        });
        assert!(files(dir.path()) == before, "the child wrote something");
        assert!(matches!(builder().open(dir.path()), Err(Error::Locked { .. })));
        let (store, committed, batched) = owned.take().unwrap();
        committed.commit().unwrap();
        batched.commit().unwrap();
        assert!(matches!(store.claim("held").unwrap(), Claim::InFlight { .. }));
        held.commit().unwrap();
        for key in ["a", "held", "done", "batched"] {
            assert_eq!(store.observe(key).unwrap(), Verdict::Duplicate);
        }
    }
}

#[test]
fn event_time_and_memory_are_refused_too() {
    let time = Timestamp::from_unix_millis(1_700_000_000_000);
    let store = builder().event_time(true).in_memory().unwrap();
    assert_eq!(store.observe_at("a", time).unwrap(), Verdict::New);
    in_child(|| {
        refused("observe_at", store.observe_at("a", time))?;
        let batch = store.observe_batch_at(&[("b", time)]);
        refused("observe_batch_at", batch.map_err(|e| e.into_parts().1))?;
        refused("claim_at", store.claim_at("c", time))?;
        refused("observe", store.observe("a"))
    });
    assert_eq!(store.observe_at("a", time).unwrap(), Verdict::Duplicate);
}

/// The background threads are the parent's; the child gets its own, so its stores seal and merge.
#[test]
fn a_store_that_the_child_opens_works() {
    let (dir, own) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = builder().open(dir.path()).unwrap();
    assert_eq!(store.observe("a").unwrap(), Verdict::New);
    in_child(|| {
        let level = Durability::Interval(Duration::from_millis(2));
        let own = builder().durability(level).open(own.path()).map_err(|e| e.to_string())?;
        let keys: Vec<String> = (0..60_000).map(|n| format!("key-{n}")).collect();
        for keys in keys.chunks(1_000) {
            own.observe_batch(keys).map_err(|e| e.to_string())?;
        }
        own.settle();
        let sealed: u64 = own.stats().slices.iter().map(|slice| slice.sealed_keys).sum();
        if sealed == 0 {
            return Err("nothing was sealed".to_owned());
        }
        own.close().map_err(|e| e.to_string())
    });
    let own = builder().open(own.path()).unwrap();
    assert!(own.stats().recovery.clean_close);
    assert_eq!(own.observe("key-59999").unwrap(), Verdict::Duplicate);
}
