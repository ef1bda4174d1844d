//! Opens that do not come to their end, and servers that lose something meanwhile.

use std::io::ErrorKind;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceonly::authority::memory;
use onceonly::sim::{Fault, Image, SimDisk};
use onceonly::{Error, Ownership, Timestamp};

use crate::fixture::{LEASE, SPACE, Site, eventually, is_new, written};

const SHORT: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(10);

fn created() -> Timestamp {
    Site::at(Duration::ZERO)
}

/// Has the server refuse to list its slices, which an open asks for when it has the space.
fn refuse_slices(site: &Site, wire: &crate::fixture::Wire) {
    let server = site.server.clone();
    wire.before_slices(move || server.fail_next(2, memory::Fault::Refuse));
}

#[test]
fn an_open_that_fails_gives_the_space_back() {
    let site = Site::new();
    let wire = site.wire();
    refuse_slices(&site, &wire);
    let error = site.builder_with(&wire).in_memory().unwrap_err();
    assert!(matches!(error, Error::Authority { transient: true, .. }), "{error:?}");
    let a = site.store();
    assert_eq!(a.stats().owner.unwrap().epoch, 2);
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    refuse_slices(&site, &wire);
    assert!(site.builder_with(&wire).in_memory().is_err());
    let b = site.store();
    assert!(!is_new(&b, "1"));
    assert_eq!(b.guaranteed_since(), created(), "nothing is missing");
}

/// Whatever of an open fails: another one has the space at once, and knows all.
#[test]
fn an_open_that_fails_at_any_call_gives_the_space_back() {
    let mut failed = 0;
    for call in 1.. {
        let site = Site::new();
        let disk = SimDisk::new();
        let a = site.builder().open_simulated(&disk).unwrap();
        assert!(is_new(&a, "1"));
        a.close().unwrap();
        let before = disk.calls();
        let fault = Fault { at: before + call, kind: ErrorKind::StorageFull, for_ever: false };
        disk.set_fault(Some(fault));
        let opened = site.builder().open_simulated(&disk);
        let is_over = disk.calls() < before + call;
        disk.set_fault(None);
        match opened {
            Ok(a) => a.close().unwrap(),
            Err(_) => failed += 1,
        }
        let b = site.store();
        assert!(!is_new(&b, "1"), "call {call}");
        assert_eq!(b.guaranteed_since(), created(), "call {call}");
        assert!(b.forget("1").unwrap() && is_new(&b, "2"));
        b.close().unwrap();
        let a = site.builder().open_simulated(&disk).unwrap();
        assert!(is_new(&a, "1") && !is_new(&a, "2"), "call {call}");
        if is_over {
            break;
        }
    }
    assert!(failed > 10, "{failed} calls");
}

/// Also where not even that can be written down: the directory itself goes on at once.
#[test]
fn a_directory_whose_open_failed_goes_on() {
    for for_ever in [false, true] {
        let mut failed = 0;
        for call in 1.. {
            let (is_over, error) = goes_on_after(call, for_ever);
            failed += u32::from(error);
            if is_over {
                break;
            }
        }
        assert!(failed > 10, "{failed} calls");
    }
}

/// Whether an open makes fewer calls, and whether it failed.
fn goes_on_after(call: u64, for_ever: bool) -> (bool, bool) {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let builder = site.builder_with(&wire).authority_deadline(SHORT);
    let a = builder.open_simulated(&disk).unwrap();
    wire.cut();
    assert!(is_new(&a, "unsent"));
    let disk = disk.snapshot().after_kill();
    let before = disk.calls();
    disk.set_fault(Some(Fault { at: before + call, kind: ErrorKind::StorageFull, for_ever }));
    let opened = site.builder().open_simulated(&disk);
    let (is_over, failed) = (disk.calls() < before + call, opened.is_err());
    disk.set_fault(None);
    drop(opened);
    let a = site.builder().open_simulated(&disk).unwrap();
    assert!(!is_new(&a, "unsent"), "call {call}");
    assert_eq!(a.guaranteed_since(), created(), "call {call}");
    a.close().unwrap();
    assert!(!is_new(&site.store(), "unsent"), "call {call}");
    (is_over, failed)
}

/// What a dead owner had not written stays a hole, though another one had the space since.
#[test]
fn an_open_that_fails_does_not_vouch_for_the_owner_before() {
    let site = Site::new();
    let wire = site.wire();
    let window = LEASE * 4;
    let a = site.builder_with(&wire).window(window).in_memory().unwrap();
    written(&a);
    wire.cut();
    assert!(is_new(&a, "lost"));
    site.clock.advance(LEASE * 2);
    let other = site.wire();
    refuse_slices(&site, &other);
    assert!(site.builder_with(&other).window(window).in_memory().is_err());
    let b = site.builder().window(window).in_memory().unwrap();
    assert_eq!(b.guaranteed_since(), Site::at(LEASE * 2));
}

/// The process dies between becoming the owner and writing down what the directory is worth.
fn killed_on_its_way(site: &Site, disk: &SimDisk) -> SimDisk {
    let (renames, left) = (AtomicU32::new(0), Arc::new(Mutex::new(None::<Image>)));
    let (wire, its_disk, its_left) = (site.wire(), disk.clone(), Arc::clone(&left));
    let builder = site.builder_with(&wire).authority_deadline(SHORT);
    disk.set_watch(Some(Arc::new(move |action, name| {
        if action == "renaming to" && name == "MANIFEST" && renames.fetch_add(1, SeqCst) == 1 {
            *its_left.lock().unwrap() = Some(its_disk.snapshot());
            // Nothing is heard of it any more.
            wire.cut();
            return Some(ErrorKind::Other);
        }
        None
    })));
    assert!(builder.open_simulated(disk).is_err());
    disk.set_watch(None);
    let left = left.lock().unwrap().take().expect("the manifest is replaced twice");
    left.after_kill()
}

#[test]
fn a_kill_while_the_store_is_opened_loses_nothing() {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let a = site.builder_with(&wire).authority_deadline(SHORT).open_simulated(&disk).unwrap();
    wire.cut();
    assert!(is_new(&a, "unsent"));
    let mut left = disk.snapshot().after_kill();
    for _ in 0..3 {
        left = killed_on_its_way(&site, &left);
    }
    let a = site.builder().open_simulated(&left).unwrap();
    assert!(!is_new(&a, "unsent"));
    assert_eq!(a.guaranteed_since(), created());
    written(&a);
    a.close().unwrap();
    assert!(!is_new(&site.store(), "unsent"));
}

/// What another owner has seen and forgotten since is not in the directory.
#[test]
fn a_directory_of_an_earlier_owner_stays_one_when_its_open_is_killed() {
    let site = Site::new();
    let disk = SimDisk::new();
    let a = site.builder().open_simulated(&disk).unwrap();
    assert!(is_new(&a, "1") && is_new(&a, "kept"));
    a.close().unwrap();
    let b = site.store();
    assert!(b.forget("1").unwrap() && is_new(&b, "2"));
    b.close().unwrap();
    let left = killed_on_its_way(&site, &disk);
    let a = site.builder().open_simulated(&left).unwrap();
    assert!(is_new(&a, "1"), "it was forgotten");
    assert!(!is_new(&a, "2") && !is_new(&a, "kept"));
}

/// Between the answer that the store is the owner and the question what the owners before have written.
#[test]
fn slices_that_a_server_lost_are_not_taken_for_none() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    site.clock.advance(LATER);
    let wire = site.wire();
    let server = site.server.clone();
    wire.before_slices(move || server.restart(None));
    let error = site.builder_with(&wire).in_memory().unwrap_err();
    assert!(matches!(error, Error::Authority { transient: true, .. }), "{error:?}");
    let b = site.builder_with(&wire).in_memory().unwrap();
    assert!(b.guaranteed_since() >= Site::at(LATER));
}

/// What was lost while the store was not to be told yet, and another one was.
#[test]
fn a_loss_that_only_another_store_was_told_of_is_noticed() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    site.clock.advance(LATER);
    // One client, so the other store hears of it for both.
    let client = Arc::new(site.wire());
    let builder = |space: &str| {
        let builder = site.plain().authority(Arc::clone(&client), Ownership::Exclusive);
        builder.authority_space(space).owner_lease(LEASE).authority_deadline(SHORT * 50)
    };
    let other = builder("another").in_memory().unwrap();
    let disk = SimDisk::new();
    let (server, told) = (site.server.clone(), AtomicU32::new(0));
    disk.set_watch(Some(Arc::new(move |action, name| {
        let is_published = action == "renaming to" && name == "MANIFEST";
        if is_published && told.fetch_add(1, SeqCst) == 0 {
            server.restart(None);
            assert!(is_new(&other, "x"));
            eventually("the other store has heard of it", || server.chunks("another").0 > 0);
        }
        None
    })));
    let b = builder(SPACE).open_simulated(&disk).unwrap();
    eventually("the server is asked again", || {
        let answer = b.observe("1");
        assert!(answer.is_err() || b.guaranteed_since() >= Site::at(LATER), "{answer:?}");
        answer.is_ok()
    });
    disk.set_watch(None);
}
