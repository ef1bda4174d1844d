//! Sealed files, and who writes what they hold to the authority.

use std::io::ErrorKind;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceonly::Dedup;
use onceonly::sim::{SimDisk, Watch};

use crate::fixture::{Site, Wire, eventually, is_new, written};

fn keys() -> Vec<String> {
    (0..20_000).map(|n| n.to_string()).collect()
}

fn open(site: &Site, wire: &Wire, disk: &SimDisk) -> Dedup {
    let builder = site.builder_with(wire).expected_keys(2_000);
    builder.authority_deadline(Duration::from_millis(100)).open_simulated(disk).unwrap()
}

/// What a store does to the manifest when it has begun to seal.
fn names_a_sealing(action: &str, name: &str, sealing: &AtomicU32) -> bool {
    if action == "creating" && name.starts_with("run-") {
        sealing.fetch_max(1, SeqCst);
    }
    action == "renaming to" && name == "MANIFEST" && sealing.load(SeqCst) > 0
}

fn all_are_there(site: &Site) {
    let b = site.store();
    b.warm_up(|_| {}).unwrap();
    assert!(b.contains_batch(&keys()).unwrap().into_iter().all(|live| live));
}

/// Sealed in an outage: the manifest cannot be replaced once, be it by who seals or by who comes after.
#[test]
fn a_manifest_that_cannot_be_written_once_loses_no_sealed_file() {
    for nth in 1..=4 {
        for kill in [false, true] {
            let site = Site::new();
            let (disk, wire) = (SimDisk::new(), site.wire());
            let a = open(&site, &wire, &disk);
            wire.cut();
            let count = Arc::new(AtomicU32::new(0));
            let (sealing, its_count) = (AtomicU32::new(0), Arc::clone(&count));
            disk.set_watch(Some(Arc::new(move |action, name| {
                let fails = names_a_sealing(action, name, &sealing)
                    && its_count.fetch_add(1, SeqCst) + 1 == nth;
                fails.then_some(ErrorKind::StorageFull)
            })));
            a.observe_batch(&keys()).unwrap();
            let mut more = 0;
            eventually("it has failed, and was tried again", || {
                let some: Vec<String> = (0..500).map(|n| format!("{more}-{n}")).collect();
                more += 1;
                a.observe_batch(&some).unwrap();
                a.settle();
                count.load(SeqCst) > nth
            });
            disk.set_watch(None);
            let mut a = a;
            if kill {
                let left = disk.snapshot().after_kill();
                a = open(&site, &site.wire(), &left);
            }
            wire.mend();
            written(&a);
            a.close().unwrap();
            all_are_there(&site);
        }
    }
}

const SEALING: u32 = 1;
const LOST: u32 = 2;
const CUT: u32 = 3;

/// Has the server lose everything when who seals has seen that all is written, and is about to say so; then
/// has nobody hear who has found that out, and gone back to the begin.
fn interfere(site: &Site, wire: &Wire, store: &Dedup, steps: &Arc<AtomicU32>) -> Watch {
    let (server, wire) = (site.server.clone(), wire.clone());
    let (store, steps) = (store.clone(), Arc::clone(steps));
    let sealer = Mutex::new(None);
    Arc::new(move |action, name| {
        let next = |from: u32, to: u32| steps.compare_exchange(from, to, SeqCst, SeqCst).is_ok();
        let thread = std::thread::current();
        if action == "creating" && name.starts_with("run-") && next(0, SEALING) {
            *sealer.lock().unwrap() = Some(thread.id());
        }
        let seals = *sealer.lock().unwrap() == Some(thread.id());
        if seals && action == "syncing the directory" && next(SEALING, LOST) {
            server.restart(None);
            assert!(is_new(&store, "after"));
            eventually("all is to be written again", || steps.load(SeqCst) == CUT);
        }
        let writes = thread.name() == Some("onceonly-authority");
        if writes && action == "renaming to" && name == "MANIFEST" && next(LOST, CUT) {
            wire.cut();
        }
        None
    })
}

/// The server loses everything just when sealed files are to be named, and their records count as written.
#[test]
fn what_has_to_be_written_again_is_found_in_files_that_are_sealed_meanwhile() {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let a = open(&site, &wire, &disk);
    a.observe_batch(&keys()).unwrap();
    written(&a);
    let steps = Arc::new(AtomicU32::new(0));
    let watch = interfere(&site, &wire, &a, &steps);
    disk.set_watch(Some(watch));
    let mut seen = Vec::new();
    eventually("a segment is sealed", || {
        let some: Vec<String> = (0..500).map(|n| format!("{}-{n}", seen.len())).collect();
        // While it is in doubt who the owner is there is no answer.
        if a.observe_batch(&some).is_ok() {
            seen.extend(some);
        }
        a.settle();
        steps.load(SeqCst) == CUT
    });
    disk.set_watch(None);
    wire.mend();
    written(&a);
    a.close().unwrap();
    let b = site.store();
    b.warm_up(|_| {}).unwrap();
    assert!(b.contains_batch(&seen).unwrap().into_iter().all(|live| live));
    assert!(!is_new(&b, "after"));
    b.close().unwrap();
    all_are_there(&site);
}
