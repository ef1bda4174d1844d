//! The journal: space that was set aside is there, and every chunk is handed out once.

use std::collections::HashSet;
use std::sync::Arc;

use super::{PREEMPTIONS, both, check, spawn, store};
use crate::journal::{Journal, Reservation, Taken};
use crate::ledger::Ledger;

fn journal(segment_chunks: u32) -> (Arc<Journal>, Arc<Ledger>) {
    let (engine, _) = store();
    let ledger = Arc::clone(&engine.ledger);
    (Arc::new(Journal::new(Arc::clone(&ledger), segment_chunks, false)), ledger)
}

fn take(journal: &Journal, ledger: &Ledger) -> Taken {
    let taken = journal.take(&mut Reservation::default()).expect("there is memory");
    assert!(ledger.read(|manifest| manifest.journals.contains(&taken.segment.id)));
    assert_ne!(taken.segment.order(), 0, "a reader could not tell where it belongs");
    taken
}

fn assert_distinct(taken: &[Taken]) {
    let places: HashSet<_> = taken.iter().map(|taken| (taken.segment.id, taken.chunk)).collect();
    assert_eq!(places.len(), taken.len(), "a chunk was handed out twice");
}

/// On a full disk a batch fails before its first mark, or not at all.
#[test]
fn what_is_set_aside_is_there() {
    check(PREEMPTIONS, || {
        let (journal, ledger) = journal(3);
        journal.prepare_spares(1).expect("there is memory");
        // From here on there is no other segment.
        ledger.close();
        let batch = |journal: Arc<Journal>, takes: usize| {
            move || {
                let Ok(mut reservation) = journal.reserve(2) else { return Vec::new() };
                let taken = (0..takes).map(|_| journal.take(&mut reservation));
                let taken = taken.collect::<Result<Vec<_>, _>>().expect("it was set aside");
                journal.release(reservation);
                taken
            }
        };
        // One of them gives a chunk back.
        let one = batch(Arc::clone(&journal), 2);
        let (mut taken, other) = both(one, batch(Arc::clone(&journal), 1));
        taken.extend(other);
        assert!(!taken.is_empty(), "the first to ask gets it");
        while let Ok(more) = journal.take(&mut Reservation::default()) {
            taken.push(more);
        }
        assert_distinct(&taken);
        assert_eq!(taken.len(), 3, "what was not taken is free again");
    });
}

/// Threads run through several segments while the background makes others ready.
#[test]
fn chunks_are_handed_out_once_and_segments_end_once() {
    check(2, || {
        let (journal, ledger) = journal(2);
        let taker = |count: usize| {
            let (journal, ledger) = (Arc::clone(&journal), Arc::clone(&ledger));
            move || (0..count).map(|_| take(&journal, &ledger)).collect::<Vec<_>>()
        };
        let background = {
            let journal = Arc::clone(&journal);
            spawn(move || journal.prepare_spares(1).expect("there is memory"))
        };
        let (mut taken, others) = both(taker(2), taker(3));
        background.join().expect("the thread ran");
        taken.extend(others);
        assert_distinct(&taken);
        let begun: HashSet<_> = taken.iter().map(|taken| taken.segment.id).collect();
        let news = taken.iter().filter(|taken| taken.began_segment).count();
        assert_eq!(news, begun.len(), "each segment is begun once, and its beginning is told");
        let full: HashSet<_> = journal.full_segments().into_iter().collect();
        assert_eq!(full.len(), begun.len() - 1, "all but the last are to be sealed");
        assert!(full.is_subset(&begun));
    });
}
