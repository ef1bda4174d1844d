//! Sealing: at every instant a digest is in at least one place that a look-up visits, and in at least
//! one file that the manifest names.

use std::sync::Arc;

use super::{PREEMPTIONS, SLICE, both, check, digest, observe, spawn, store};
use crate::config::OnOutage;
use crate::engine::Engine;
use crate::format::names::{self, Kind};
use crate::journal::Reservation;
use crate::verdict::Verdict;

/// Uses up the segment in use, so that it is due to be sealed.
fn fill_segment(engine: &Engine) {
    let journal = &engine.tools.journal;
    while !journal.full_segments().len().eq(&1) {
        journal.take(&mut Reservation::default()).expect("there is memory");
    }
}

fn seal(engine: &Arc<Engine>) -> impl FnOnce() + use<> {
    let engine = Arc::clone(engine);
    move || engine.seal_due().expect("sealing works")
}

#[test]
fn a_look_up_finds_a_key_while_it_is_sealed() {
    check(PREEMPTIONS, || {
        let (engine, _) = store();
        assert_eq!(observe(&engine, 1), Verdict::New);
        fill_segment(&engine);
        both(seal(&engine), || {
            assert_eq!(observe(&engine, 1), Verdict::Duplicate);
            assert_eq!(observe(&engine, 1), Verdict::Duplicate);
        });
        assert!(engine.shards[0].lock().frozen.is_empty(), "it was sealed");
        assert_eq!(observe(&engine, 1), Verdict::Duplicate);
    });
}

/// The set that is about to be frozen still gets records.
#[test]
fn a_key_that_comes_while_its_segment_is_sealed_stays() {
    check(PREEMPTIONS, || {
        let (engine, _) = store();
        assert_eq!(observe(&engine, 1), Verdict::New);
        fill_segment(&engine);
        both(seal(&engine), || {
            assert_eq!(observe(&engine, 2), Verdict::New);
            assert_eq!(observe(&engine, 2), Verdict::Duplicate);
        });
        for key in [1, 2] {
            assert_eq!(observe(&engine, key), Verdict::Duplicate);
        }
    });
}

#[test]
fn the_manifest_names_a_file_with_the_key_while_it_is_sealed() {
    check(PREEMPTIONS, || {
        let (engine, _) = store();
        assert_eq!(observe(&engine, 1), Verdict::New);
        fill_segment(&engine);
        let segment = engine.tools.journal.full_segments()[0];
        let sealing = spawn(seal(&engine));
        let named = engine.ledger.read(|manifest| {
            let unsealed = manifest.journals.contains(&segment);
            let unsealed = unsealed.then(|| names::numbered(Kind::Journal, segment));
            let sealed = manifest.runs.iter().map(|run| names::numbered(Kind::Run, run.file));
            let named: Vec<_> = unsealed.into_iter().chain(sealed).collect();
            let there = engine.ledger.storage().list().expect("there is memory");
            assert!(named.iter().all(|name| there.contains(name)), "a file is gone too early");
            named
        });
        assert_eq!(named.len(), 1, "the key is in one file");
        sealing.join().expect("the thread ran");
    });
}

/// Both replace the catalog.
#[test]
fn a_slice_may_begin_while_another_is_sealed() {
    check(PREEMPTIONS - 1, || {
        let (engine, clock) = store();
        assert_eq!(observe(&engine, 1), Verdict::New);
        fill_segment(&engine);
        clock.advance(SLICE);
        both(seal(&engine), || assert_eq!(observe(&engine, 2), Verdict::New));
        for key in [1, 2] {
            assert!(engine.contains(digest(key), OnOutage::Fail).expect("the store works"));
        }
        let catalog = engine.catalog();
        assert_eq!(catalog.slices.iter().map(|slice| slice.runs.len()).sum::<usize>(), 1);
        assert_eq!(catalog.slices.len(), 2);
    });
}
