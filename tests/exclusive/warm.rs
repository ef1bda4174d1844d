//! Loading the window of the owner before.

use onceonly::sim::SimDisk;
use onceonly::{Dedup, Error, Verdict};

use crate::fixture::{Site, is_new, written};

fn keys(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

fn all(store: &Dedup, keys: &[String], wanted: Verdict) -> bool {
    store.observe_batch(keys).unwrap().into_iter().all(|verdict| verdict == wanted)
}

#[test]
fn a_warm_store_asks_nobody() {
    let site = Site::new();
    let a = site.builder().expected_keys(500_000).in_memory().unwrap();
    for slice in 0..5 {
        a.observe_batch(&keys(slice * 1_000, (slice + 1) * 1_000)).unwrap();
        site.clock.advance(crate::fixture::SLICE);
    }
    assert!(a.forget("17").unwrap());
    a.close().unwrap();
    let disk = SimDisk::new();
    let b = site.builder().open_simulated(&disk).unwrap();
    assert!(!is_new(&b, "18"), "asked for before");
    let mut seen = Vec::new();
    b.warm_up(|progress| seen.push(progress)).unwrap();
    let last = seen.last().unwrap();
    assert_eq!(last.parts_loaded, last.parts);
    assert!(seen.windows(2).all(|two| two[0].parts_loaded <= two[1].parts_loaded));
    assert!(last.keys > 4_000);
    let calls = site.server.calls();
    assert!(is_new(&b, "17"));
    assert!(all(&b, &keys(18, 5_000), Verdict::Duplicate));
    assert!(all(&b, &keys(5_000, 6_000), Verdict::New));
    assert_eq!(site.server.calls().read, calls.read);
    written(&b);
    assert_eq!(b.stats().owner.unwrap().keys_written, 1_001, "what was read is not written again");
    // It is done at once, and what was loaded is on the disk.
    b.warm_up(|_| panic!("there is nothing to load")).unwrap();
    let left = disk.snapshot().after_kill();
    let b = site.builder().open_simulated(&left).unwrap();
    assert!(all(&b, &keys(17, 6_000), Verdict::Duplicate));
    assert_eq!(site.server.calls().read, calls.read);
}

#[test]
fn loaded_keys_end_with_their_slices() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "old"));
    site.clock.advance(crate::fixture::SLICE * 3);
    assert!(is_new(&a, "young"));
    a.close().unwrap();
    let b = site.store();
    b.warm_up(|_| {}).unwrap();
    site.clock.advance(crate::fixture::WINDOW - crate::fixture::SLICE);
    assert!(!b.contains("old").unwrap() && b.contains("young").unwrap());
    site.clock.advance(crate::fixture::SLICE * 2 + std::time::Duration::from_secs(5));
    assert!(!b.contains("young").unwrap());
}

#[test]
fn loading_goes_on_where_it_failed() {
    let site = Site::new();
    let a = site.builder().expected_keys(2_000_000).in_memory().unwrap();
    a.observe_batch(&keys(0, 1_000)).unwrap();
    a.close().unwrap();
    let wire = site.wire();
    let b = site.builder_with(&wire).in_memory().unwrap();
    let failed = b.warm_up(|_| wire.cut());
    assert!(matches!(failed, Err(Error::Authority { transient: true, .. })), "{failed:?}");
    wire.mend();
    crate::fixture::eventually("it comes to its end", || b.warm_up(|_| {}).is_ok());
    assert!(all(&b, &keys(0, 1_000), Verdict::Duplicate));
}

#[test]
fn a_limit_counts_what_is_loaded() {
    let site = Site::new();
    let a = site.store();
    a.observe_batch(&keys(0, 100)).unwrap();
    a.close().unwrap();
    let b = site.builder().max_keys(99).in_memory().unwrap();
    assert!(matches!(b.warm_up(|_| {}), Err(Error::Full { .. })));
    b.close().unwrap();
    let b = site.builder().max_keys(101).in_memory().unwrap();
    b.warm_up(|_| {}).unwrap();
    assert_eq!(b.stats().keys_live, 100);
    assert!(is_new(&b, "new") && matches!(b.observe("more"), Err(Error::Full { .. })));
}

#[test]
fn stores_without_an_owner_before_are_warm() {
    let site = Site::new();
    site.store().warm_up(|_| panic!("there is nothing to load")).unwrap();
    site.plain().in_memory().unwrap().warm_up(|_| panic!("nor here")).unwrap();
}
