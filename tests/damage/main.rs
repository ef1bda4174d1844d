//! Damaged stores: whatever happens to the bytes of the files, opening and asking never panics,
//! never calls a fresh key a duplicate, and never hides that something is lost.

#[path = "../common/mod.rs"]
mod common;
mod results;
mod subject;

use std::fs;
use std::time::Duration;

use common::{Rng, fast_dir, start};
use onceonly::{Claim, Dedup, Error, ManualClock, Timestamp, Verdict};
use subject::{Subject, Trust};

/// Single bytes of everything that is written once: header, manifest, clock, and the first page of
/// each other file; samples of the rest.
fn places(length: usize, rng: &mut Rng) -> Vec<usize> {
    if length <= 512 {
        return (0..length).collect();
    }
    let mut places: Vec<usize> = (0..128).collect();
    places.extend((4096..length).step_by(4096).flat_map(|page| [page, page + 7, page + 15]));
    places.extend((0..120).map(|_| rng.below(length as u64) as usize));
    places.retain(|place| *place < length);
    places
}

fn sweep(trust: Trust, mask: fn(&mut Rng) -> u8) {
    let subject = Subject::new();
    let mut rng = Rng::new(11);
    for name in subject.names() {
        let length = subject.bytes(&name).len();
        for place in places(length, &mut rng) {
            let mask = mask(&mut rng);
            subject.check(trust, &format!("byte {place} of {name} ^ {mask:#x}"), &name, |bytes| {
                bytes[place] ^= mask;
            });
        }
    }
}

/// Promise 1: one flipped bit, on the boot on which the store was written, so that its maps would
/// be trusted.
#[test]
fn one_flipped_bit_is_never_a_false_duplicate() {
    sweep(Trust::SamePlace, |rng| 1 << rng.below(8));
}

/// Promises 1 and 6: one flipped bit in a copy of the store, where nothing may be trusted
/// unverified.
#[test]
fn one_flipped_bit_of_a_copied_store_is_never_hidden() {
    sweep(Trust::Copied, |rng| 1 << rng.below(8));
}

/// Files that end early, at any length.
#[test]
fn truncated_files_are_never_hidden() {
    let subject = Subject::new();
    let mut rng = Rng::new(12);
    for name in subject.names() {
        let length = subject.bytes(&name).len() as u64;
        let mut lengths = vec![0, 1, 8, 64, length / 2, length.saturating_sub(1)];
        lengths.extend((0..20).map(|_| rng.below(length + 1)));
        lengths.push(length / 4096 / 2 * 4096);
        for left in lengths.into_iter().filter(|left| *left < length) {
            for trust in [Trust::SamePlace, Trust::Copied] {
                subject.check(trust, &format!("{name} cut to {left}"), &name, |bytes| {
                    bytes.truncate(left as usize);
                });
            }
        }
    }
}

/// Files with bytes after their end.
#[test]
fn extended_files_are_never_a_false_duplicate() {
    let subject = Subject::new();
    for name in subject.names() {
        for (extra, fill) in [(1, 0), (1, 255), (16, 7), (4096, 0), (4096, 255), (100_000, 1)] {
            for trust in [Trust::SamePlace, Trust::Copied] {
                subject.check(trust, &format!("{name} with {extra} x {fill}"), &name, |bytes| {
                    bytes.resize(bytes.len() + extra, fill);
                });
            }
        }
    }
}

/// Files, or single pages or sectors of them, that read as zeros or as noise.
#[test]
fn zeroed_and_overwritten_pages_are_never_a_false_duplicate() {
    let subject = Subject::new();
    let mut rng = Rng::new(13);
    for name in subject.names() {
        let length = subject.bytes(&name).len();
        for unit in [512, 4096, usize::MAX] {
            let pieces = length.div_ceil(unit.min(length.max(1)));
            for _ in 0..pieces.min(24) {
                let from = (rng.below(pieces.max(1) as u64) as usize).saturating_mul(unit);
                let (trust, noise) = (Trust::any(&mut rng), rng.below(2) == 0);
                let mut fill = rng.clone();
                let what = format!("{unit} bytes of {name} at {from}, noise = {noise}");
                subject.check(trust, &what, &name, |bytes| {
                    let to = from.saturating_add(unit).min(length);
                    for byte in &mut bytes[from.min(to)..to] {
                        *byte = if noise { fill.next() as u8 } else { 0 };
                    }
                });
            }
        }
    }
}

/// Files that are gone.
#[test]
fn deleted_files_are_never_hidden() {
    let subject = Subject::new();
    for name in subject.names() {
        for trust in [Trust::SamePlace, Trust::Copied] {
            subject.check_files(trust, &format!("{name} deleted"), &name, |dir| {
                fs::remove_file(dir.join(&name)).unwrap();
            });
        }
    }
}

/// Files that stand under each other's names.
#[test]
fn swapped_files_are_never_a_false_duplicate() {
    let subject = Subject::new();
    let names = subject.names();
    for (n, one) in names.iter().enumerate() {
        for other in &names[n + 1..] {
            for trust in [Trust::SamePlace, Trust::Copied] {
                subject.check_files(trust, &format!("{one} and {other} swapped"), one, |dir| {
                    fs::write(dir.join(one), subject.bytes(other)).unwrap();
                    fs::write(dir.join(other), subject.bytes(one)).unwrap();
                });
            }
        }
    }
}

/// Files of another store with another secret: their keys are not ours.
#[test]
fn files_of_another_store_are_never_a_false_duplicate() {
    let (subject, stranger) = (Subject::new(), Subject::new());
    for name in subject.names() {
        let Some(foreign) = stranger.names().into_iter().find(|other| *other == name) else {
            continue;
        };
        for trust in [Trust::SamePlace, Trust::Copied] {
            subject.check(trust, &format!("{name} of another store"), &name, |bytes| {
                *bytes = stranger.bytes(&foreign).to_vec();
            });
        }
    }
}

/// Promises 1, 6 and 8: pages are damaged that have to be read to settle the claims in flight. The store
/// opens, does not vouch for their slice, and grants each claim to the next who asks.
#[test]
fn a_damaged_page_under_claims_in_flight_leaves_the_store_usable() {
    const KEYS: u32 = 6_000;
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let builder = Dedup::builder().window(Duration::from_secs(60)).shards(2).clock(clock.clone());
    let builder = builder.expected_keys(100);
    let store = builder.clone().open(dir.path()).unwrap();
    let keys: Vec<String> = (0..KEYS).map(|n| format!("key-{n}")).collect();
    assert!(store.observe_batch(&keys).unwrap().iter().all(|verdict| *verdict == Verdict::New));
    let claimed: Vec<String> = (0..64).map(|n| format!("claimed-{n}")).collect();
    let guards = store.claim_batch(&claimed).unwrap();
    store.settle();
    store.close().unwrap();
    drop(guards);
    let mut damaged = 0;
    for entry in fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        let (name, mut bytes) = (entry.file_name(), fs::read(entry.path()).unwrap());
        // Without filters every page is suspected.
        if name.to_str().unwrap().starts_with("filter-") {
            fs::remove_file(entry.path()).unwrap();
        } else if name.to_str().unwrap().starts_with("run-") {
            let pages = bytes.chunks_mut(4096).skip(1);
            pages.take(1).for_each(|page| page[100] ^= 1);
            fs::write(entry.path(), bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "nothing was sealed");
    clock.advance(Duration::from_secs(1));
    let store = builder.open(dir.path()).unwrap();
    assert!(store.guaranteed_since() > Timestamp::from(start()), "it vouches for what it lost");
    assert!(!store.stats().recovery.damage.is_empty());
    assert!(store.stats().slices.iter().any(|slice| !slice.complete));
    assert_eq!(store.claims().unwrap().len(), claimed.len());
    for key in &claimed {
        assert!(!matches!(store.contains(key), Ok(true)), "{key} was never committed");
        let Claim::Granted(guard) = store.claim(key).unwrap() else { panic!("{key}: not granted") };
        guard.commit().unwrap();
        assert!(store.contains(key).unwrap());
    }
    for n in 0..1_000 {
        assert!(!matches!(store.contains(format!("fresh-{n}")), Ok(true)), "a false duplicate");
    }
}

/// Files that the engine did not write are moved away and named, never deleted; the store works.
#[test]
fn unknown_files_are_set_aside_and_named() {
    let subject = Subject::new();
    let dir = fast_dir();
    subject.copy_to(dir.path());
    let names = ["notes.txt", "core.1234", "run-12", "journal-zzzz", "MANIFEST.bak", ".hidden"];
    for name in names {
        fs::write(dir.path().join(name), format!("content of {name}")).unwrap();
    }
    let store = subject.builder(Trust::Copied).open(dir.path()).unwrap();
    let told = store.stats().recovery.set_aside;
    for name in names {
        assert!(told.iter().any(|line| line.contains(name)), "{name} is not named: {told:?}");
        assert!(!dir.path().join(name).exists(), "{name} was left in the store");
        let kept = fs::read_dir(dir.path().join("set-aside")).unwrap().any(|entry| {
            let content = fs::read(entry.unwrap().path()).unwrap();
            content == format!("content of {name}").into_bytes()
        });
        assert!(kept, "{name} was lost");
    }
    assert_eq!(store.observe("key-1").unwrap(), Verdict::Duplicate);
    drop(store);
    let store = subject.builder(Trust::Copied).open(dir.path()).unwrap();
    assert_eq!(store.stats().recovery.set_aside, Vec::<String>::new(), "told once");
}

/// The header of a store of a newer release is told from damage, by its version.
#[test]
fn a_store_of_another_version_is_refused() {
    let subject = Subject::new();
    let dir = fast_dir();
    // Every byte of the header, each with a higher value: none of them opens, whichever holds the
    // version.
    for place in 0..subject.bytes("STORE").len() {
        subject.copy_to(dir.path());
        let mut bytes = subject.bytes("STORE").to_vec();
        bytes[place] = bytes[place].wrapping_add(1);
        fs::write(dir.path().join("STORE"), bytes).unwrap();
        let error = subject.builder(Trust::Copied).open(dir.path()).unwrap_err();
        let refused = matches!(
            &error,
            Error::Version { .. } | Error::Corrupt { .. } | Error::NotAStore { .. }
        );
        assert!(refused, "byte {place}: {error}");
        assert!(!error.is_transient());
    }
}
