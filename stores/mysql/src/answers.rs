//! What the statements of a piece came back with, as answers.

use std::collections::HashMap;

use mysql_async::Row;
use onceonly::authority::{Row as Asked, RowAnswer, RowOp};
use onceonly_sql_common::{MARKED, Stored};

use crate::pieces::{Piece, granted, matched};
use crate::script::{Set, column};

/// Which statement of a piece has the answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answering {
    /// A select of what is there, after what was to be done.
    Found(usize),
    /// The first of updates, one a row.
    Matched(usize),
    /// A select of what was there, before it was forgotten.
    Forgotten(usize),
}

/// Rows as they are in the table, and the time of the statement.
fn stored(set: &Set) -> HashMap<[u8; 16], (Stored, i64)> {
    let of_row = |row: &Row| {
        let stored = Stored {
            state: column(row, 1),
            token: bytes16(row, 2),
            fence: column(row, 3),
            seen: column(row, 4),
            live_until: column(row, 5),
            expires: column(row, 6),
            value: column(row, 7),
        };
        (bytes16(row, 0), (stored, column(row, 8)))
    };
    set.rows.iter().map(of_row).collect()
}

pub(crate) fn bytes16(row: &Row, at: usize) -> [u8; 16] {
    let bytes: Vec<u8> = column(row, at);
    // Nobody else writes another length.
    bytes.try_into().unwrap_or_default()
}

/// The answers to the rows of a piece, in their order; `None` where somebody changed the row
/// meanwhile. `sets` are those of the piece.
pub(crate) fn answers(piece: &Piece, rows: &[Asked<'_>], sets: &[Set]) -> Vec<Option<RowAnswer>> {
    let of_piece = piece.at.iter().map(|at| &rows[*at]);
    match piece.answering {
        Answering::Matched(first) => {
            let sets = sets.get(first..).unwrap_or_default();
            let answer =
                |(row, set): (&Asked<'_>, &Set)| Some(matched(row.op.kind(), set.matched > 0));
            of_piece.zip(sets).map(answer).collect()
        }
        Answering::Found(at) => {
            let mut found = sets.get(at).map(stored).unwrap_or_default();
            of_piece.map(|row| of_row(row, found.remove(row.digest.as_bytes()))).collect()
        }
        Answering::Forgotten(at) => {
            let found = sets.get(at).map(stored).unwrap_or_default();
            let live = |row: &Asked<'_>| {
                let found = found.get(row.digest.as_bytes());
                found.is_some_and(|(stored, now)| stored.state == MARKED && stored.is_live(*now))
            };
            of_piece.map(|row| Some(RowAnswer::Forgotten { live: live(row) })).collect()
        }
    }
}

/// Who has the row after the statement: the caller, by his token, or somebody else.
fn of_row(row: &Asked<'_>, found: Option<(Stored, i64)>) -> Option<RowAnswer> {
    let Some((stored, now)) = found else {
        return matches!(row.op, RowOp::Look).then_some(RowAnswer::Absent);
    };
    match row.op {
        RowOp::Observe { token, .. } if stored.is_mark_of(token, now) => {
            return Some(RowAnswer::Marked);
        }
        RowOp::Claim { token, .. } if stored.is_claim_of(token, now) => {
            return Some(granted(stored.fence));
        }
        _ => {}
    }
    let answer = stored.look(now);
    // What was absent would be the caller's.
    let is_look = matches!(row.op, RowOp::Look);
    (is_look || answer != RowAnswer::Absent).then_some(answer)
}
