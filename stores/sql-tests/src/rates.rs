//! How fast an authority is, roughly: for those who change its statements.

use std::fmt::Write as _;
use std::time::Instant;

use onceonly::authority::{Authority, Digest, Row, RowOp, Token};

use crate::model::Random;
use crate::{LONG, soon};

/// Of one call, as the engine makes them at most.
const LARGE: usize = 4_096;

fn digests(seed: u64, count: usize) -> Vec<Digest> {
    let mut random = Random(seed);
    let mut digest = || {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random.next().to_le_bytes());
        bytes[8..].copy_from_slice(&random.next().to_le_bytes());
        Digest::from_bytes(bytes)
    };
    let mut digests: Vec<_> = (0..count).map(|_| digest()).collect();
    digests.sort_unstable();
    digests
}

/// Microseconds a row of calls with 1, 32 and 4,096 rows, for each kind of step; the table has
/// grown by `before` rows.
pub fn rates(authority: &impl Authority, before: usize) -> String {
    let space = "rates";
    authority.open(space, 7, soon()).unwrap_or_else(|error| panic!("{error:?}"));
    let token = Token::from_bytes([1; 16]);
    let other = Token::from_bytes([2; 16]);
    let observe = |token| RowOp::Observe { token, keep: LONG * 60, value: &[] };
    let claim = RowOp::Claim { token, previous: None, lease: LONG, keep: LONG, value: &[] };
    let commit = RowOp::Commit { token, keep: LONG * 60, value: &[] };
    let forget = RowOp::Forget { keep: LONG };
    let call = |digests: &[Digest], op: RowOp<'_>| {
        let rows: Vec<_> =
            digests.iter().map(|digest| Row { space, digest: *digest, op }).collect();
        let began = Instant::now();
        let answers = authority.rows(&rows, soon()).unwrap_or_else(|error| panic!("{error:?}"));
        for answer in answers.rows {
            answer.unwrap_or_else(|error| panic!("{error:?}"));
        }
        began.elapsed()
    };
    for chunk in digests(1, before).chunks(LARGE) {
        call(chunk, observe(token));
    }
    let mut text = String::new();
    for (size, calls) in [(1, 200), (32, 50), (LARGE, 6)] {
        let steps = [
            ("marked", observe(token), 0),
            ("duplicate", observe(other), 0),
            ("refreshed", RowOp::Refresh { keep: LONG * 60 }, 0),
            ("forgotten", forget, 0),
            ("claimed", claim, 1),
            ("committed", commit, 1),
            ("looked at", RowOp::Look, 1),
        ];
        for (name, op, which) in steps {
            let took: Vec<_> = (0..calls)
                .map(|at| {
                    call(&digests(1_000_000 + which * 1_000 + at + size as u64 * 7, size), op)
                })
                .collect();
            let most = took.iter().max().copied().unwrap_or_default();
            let mean = took.iter().sum::<std::time::Duration>() / calls as u32;
            let row = mean.as_secs_f64() * 1e6 / size as f64;
            let _ = writeln!(text, "{size:>5} {name:<10} {row:>9.1} µs a row, slowest {most:?}");
        }
    }
    text
}
