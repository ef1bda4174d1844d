//! Forget logs: entries become visible in the order of their numbers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use onceonly::authority::{Authority, Digest, Row, RowAnswer, RowOp};

use crate::{LONG, soon};

const THREADS: u8 = 4;
const CALLS: u8 = 40;
const ROWS: u8 = 5;

fn digest(thread: u8, call: u8, row: u8) -> Digest {
    let mut bytes = [0; 16];
    // Rows of all calls lie among each other.
    bytes[..3].copy_from_slice(&[row, thread, call]);
    Digest::from_bytes(bytes)
}

/// Several clients forget; another reads on from where it was, and misses nothing.
pub fn logs_are_in_order<A: Authority>(connect: impl Fn() -> A + Sync) {
    let space = "forgetting";
    let reader = connect();
    reader.open(space, 7, soon()).unwrap_or_else(|error| panic!("{error:?}"));
    let running = AtomicU32::new(u32::from(THREADS));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (connect, running) = (&connect, &running);
            scope.spawn(move || {
                forget(&connect(), space, number);
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let (mut after, mut found) = (0, BTreeSet::new());
        loop {
            let is_last = running.load(Ordering::SeqCst) == 0;
            let log = reader.forgotten(space, after, soon());
            let log = log.unwrap_or_else(|error| panic!("{error:?}"));
            assert!(log.through >= after, "{} after {after}", log.through);
            let more = !log.digests.is_empty();
            found.extend(log.digests);
            after = log.through;
            if is_last && !more {
                break;
            }
        }
        let all = usize::from(THREADS) * usize::from(CALLS) * usize::from(ROWS);
        assert_eq!(found.len(), all, "entries came after those with higher numbers");
    });
}

fn forget(client: &impl Authority, space: &str, thread: u8) {
    for call in 0..CALLS {
        let row = |row| {
            let op = RowOp::Forget { keep: LONG };
            Row { space, digest: digest(thread, call, row), op }
        };
        let rows: Vec<Row<'_>> = (0..ROWS).map(row).collect();
        let answers = client.rows(&rows, soon()).unwrap_or_else(|error| panic!("{error:?}"));
        for answer in answers.rows {
            assert!(matches!(answer, Ok(RowAnswer::Forgotten { live: false })), "{answer:?}");
        }
    }
}
