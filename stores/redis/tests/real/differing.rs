//! Random steps, beside the authority in memory: the same answers.

use std::time::Duration;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::authority::{Authority, Digest, Row, RowAnswer, RowOp, Token};

use crate::asking::{HOUR, SPACE, digests, soon, token};
use crate::server::{Cluster, Server};

const STEPS: usize = 6_000;

/// Small numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }

    fn of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len() as u64) as usize]
    }
}

/// Of what depends on the time nothing is left, save that a lease is over or not.
fn timeless(answer: &RowAnswer) -> RowAnswer {
    match answer.clone() {
        RowAnswer::Duplicate { value, .. } => RowAnswer::Duplicate { age: Duration::ZERO, value },
        RowAnswer::InFlight { value, .. } => {
            RowAnswer::InFlight { lease_left: Duration::ZERO, value }
        }
        RowAnswer::Granted { .. } => RowAnswer::Granted { fence: 0 },
        other => other,
    }
}

fn random_op(numbers: &mut Numbers, tokens: &[Token]) -> RowOp<'static> {
    const VALUES: [&[u8]; 5] = [b"", b"", b"one", b" ", b"two \r\n\0"];
    let token = *numbers.of(tokens);
    let value = VALUES[numbers.below(5) as usize];
    // A lease of nothing is over at once, which is as good as waiting.
    let lease = *numbers.of(&[HOUR, HOUR, Duration::ZERO]);
    let keep = HOUR;
    match numbers.below(9) {
        0 => RowOp::Look,
        1 => RowOp::Observe { token, keep, value: b"" },
        2 => RowOp::Observe { token, keep, value },
        3 => RowOp::Refresh { keep },
        4 => {
            let previous = (numbers.below(2) == 0).then(|| *numbers.of(tokens));
            RowOp::Claim { token, previous, lease, keep, value }
        }
        5 => RowOp::Renew { token, lease, keep },
        6 => RowOp::Commit { token, keep, value },
        7 => RowOp::Abandon { token },
        _ if numbers.below(3) == 0 => RowOp::Forget { keep },
        _ => RowOp::Commit { token, keep, value: b"" },
    }
}

fn compare(authority: &impl Authority) {
    let memory = MemoryAuthority::new();
    authority.open(SPACE, 7, soon()).unwrap();
    memory.open(SPACE, 7, soon()).unwrap();
    let keys = digests(12);
    let tokens: Vec<Token> = (0..4).map(|_| token()).collect();
    let mut numbers = Numbers(20_261_126);
    let mut fences = vec![0; keys.len()];
    for step in 0..STEPS {
        let rows: Vec<Row<'_>> = keys
            .iter()
            .filter_map(|digest| {
                let digest: Digest = *digest;
                let op = random_op(&mut numbers, &tokens);
                (numbers.below(3) == 0).then_some(Row { space: SPACE, digest, op })
            })
            .collect();
        let wanted = memory.rows(&rows, soon()).unwrap().rows;
        let found = authority.rows(&rows, soon()).unwrap().rows;
        for ((row, wanted), found) in rows.iter().zip(wanted).zip(found) {
            let (wanted, found) = (wanted.unwrap(), found.unwrap());
            assert_eq!(timeless(&found), timeless(&wanted), "step {step}: {:?}", row.op);
            if let RowAnswer::Granted { fence } = found {
                let at = keys.iter().position(|key| *key == row.digest).unwrap();
                assert!(fence >= fences[at], "step {step}: fence {fence} after {}", fences[at]);
                fences[at] = fence;
            }
        }
    }
    let [here, there] = [
        memory.forgotten(SPACE, 0, soon()).unwrap().digests,
        authority.forgotten(SPACE, 0, soon()).unwrap().digests,
    ];
    assert!(here.len() > 100 && here == there);
}

#[test]
fn a_server_answers_as_the_authority_in_memory() {
    let server = Server::start(&[]);
    compare(&server.authority());
}

#[test]
fn a_cluster_answers_as_the_authority_in_memory() {
    let cluster = Cluster::start(0);
    compare(&cluster.authority());
}
