//! The calls as futures: by hand, under tokio, and dropped wherever they can be.

#[path = "../common/mod.rs"]
mod common;

mod dropped;
mod executor;
mod local;
mod model;
mod processing;
mod shared;
mod tokio_runtime;

use std::time::Duration;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::{Builder, Claim, ClaimGuard, Dedup, Durability, Ownership};

const WINDOW: Duration = Duration::from_secs(3600);

fn alone() -> Dedup {
    Dedup::builder().window(WINDOW).in_memory().unwrap()
}

/// A store whose marks wait for the disk.
fn synced() -> (Dedup, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let builder = Dedup::builder().window(WINDOW).durability(Durability::Sync);
    (builder.open(dir.path().join("store")).unwrap(), dir)
}

fn shared(server: &MemoryAuthority) -> Builder {
    Dedup::builder()
        .window(WINDOW)
        // No lease runs out while a test waits.
        .lease(WINDOW)
        .authority(server.clone(), Ownership::Shared)
        .authority_space("orders")
        .authority_deadline(Duration::from_secs(20))
        .forget_lag(Duration::from_secs(600))
        .secret([7; 32])
}

fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("{other:?}"),
    }
}

/// Tries until it holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
