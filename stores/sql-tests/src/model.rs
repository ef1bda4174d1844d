//! Random steps: beside the authority in memory, and from many clients at once.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::authority::{Authority, Digest, Row, RowAnswer, RowOp, Token};

use crate::{LONG, soon};

const DIGESTS: u64 = 12;
const TOKENS: u64 = 4;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn token(&mut self) -> Token {
        Token::from_bytes([self.below(TOKENS) as u8 + 1; 16])
    }

    /// What is kept for no time is over when the next call comes.
    fn span(&mut self) -> Duration {
        if self.below(4) == 0 { Duration::ZERO } else { LONG }
    }

    fn op(&mut self) -> RowOp<'static> {
        let values: [&[u8]; 3] = [b"", b"a value", b"another"];
        let value = values[self.below(3) as usize];
        let (token, keep, lease) = (self.token(), self.span(), self.span());
        match self.below(12) {
            0 => RowOp::Look,
            1..=3 => RowOp::Observe { token, keep, value },
            4 => RowOp::Refresh { keep },
            5 | 6 => RowOp::Claim { token, previous: None, lease, keep, value },
            7 => {
                let previous = Some(self.token());
                RowOp::Claim { token, previous, lease, keep, value }
            }
            8 => RowOp::Renew { token, lease, keep },
            9 => RowOp::Commit { token, keep, value },
            10 => RowOp::Abandon { token },
            _ => RowOp::Forget { keep: LONG },
        }
    }

    /// Steps of different digests, in their order.
    fn call(&mut self, space: &'static str) -> Vec<Row<'static>> {
        let count = 1 + self.below(DIGESTS);
        let digests: BTreeSet<u64> = (0..count).map(|_| self.below(DIGESTS)).collect();
        let row = |digest: u64| {
            let digest = Digest::from_bytes([digest as u8; 16]);
            Row { space, digest, op: self.op() }
        };
        digests.into_iter().map(row).collect()
    }
}

/// Answers without what depends on the clock.
fn plain(answer: &RowAnswer) -> RowAnswer {
    match answer.clone() {
        RowAnswer::Duplicate { value, .. } => RowAnswer::Duplicate { age: Duration::ZERO, value },
        RowAnswer::InFlight { value, .. } => {
            RowAnswer::InFlight { lease_left: Duration::ZERO, value }
        }
        RowAnswer::Granted { .. } => RowAnswer::Granted { fence: 0 },
        other => other,
    }
}

/// The same calls to both have the same answers, and fences never go back.
pub fn beside_memory(authority: &impl Authority, seed: u64, calls: u32) {
    let (space, memory) = ("model", MemoryAuthority::new());
    let mut random = Random(seed);
    let mut fences: BTreeMap<Digest, u64> = BTreeMap::new();
    authority.open(space, 7, soon()).unwrap_or_else(|error| panic!("{error:?}"));
    for number in 0..calls {
        let rows = random.call(space);
        let said = |authority: &dyn Authority| {
            let answers = authority.rows(&rows, soon()).unwrap_or_else(|e| panic!("{e:?}"));
            let answers = answers.rows.into_iter();
            answers.map(|answer| answer.unwrap_or_else(|e| panic!("{e:?}"))).collect::<Vec<_>>()
        };
        let (ours, right) = (said(authority), said(&memory));
        for ((row, ours), right) in rows.iter().zip(&ours).zip(&right) {
            assert_eq!(plain(ours), plain(right), "seed {seed}, call {number}: {row:?}");
            if let RowAnswer::Granted { fence } = *ours {
                let last = fences.insert(row.digest, fence).unwrap_or_default();
                assert!(fence >= last, "seed {seed}, call {number}: {fence} after {last}");
            }
        }
        // What was kept for no time is over by now on both.
        thread::sleep(Duration::from_micros(10));
    }
    let log = |authority: &dyn Authority| {
        let log = authority.forgotten(space, 0, soon()).unwrap_or_else(|e| panic!("{e:?}"));
        (log.digests, log.through)
    };
    assert_eq!(log(authority), log(&memory), "seed {seed}");
}

/// Clients that do all kinds of steps with the same rows: none is refused, none waits for ever.
pub fn all_at_once<A: Authority>(connect: impl Fn() -> A + Sync) {
    const CLIENTS: u64 = 4;
    const CALLS: u32 = 60;
    let (space, connect) = ("all-at-once", &connect);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let (authority, mut random) = (connect(), Random(client));
                authority.open(space, 7, soon()).unwrap_or_else(|error| panic!("{error:?}"));
                for _ in 0..CALLS {
                    let rows = random.call(space);
                    let answers = authority.rows(&rows, soon());
                    let answers = answers.unwrap_or_else(|error| panic!("{error:?}"));
                    for (row, answer) in rows.iter().zip(answers.rows) {
                        assert!(answer.is_ok(), "{row:?}: {answer:?}");
                    }
                }
            });
        }
    });
}
