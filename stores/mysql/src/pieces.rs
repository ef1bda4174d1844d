//! Steps of rows as statements: a transaction for all of one kind and one space.
//!
//! Rows come in the order of their digests and are locked in it, so two calls seldom wait for each
//! other in a circle; who loses then is tried again. Assignments are made from left to right, so a
//! column that a condition needs is set after the last of these conditions.

use onceonly::authority::{Row as Asked, RowAnswer, RowKind, RowOp, Token};
use onceonly_sql_common::{CANCELLED, CLAIMED, MARKED, micros, unsigned};

use crate::answers::Answering;
use crate::script::{NOW, Script, hex, list};
use crate::space;

/// Some rows of a call.
pub(crate) struct Piece {
    pub(crate) script: Script,
    pub(crate) at: Vec<usize>,
    pub(crate) answering: Answering,
}

/// What a token, a span of time and a value do in the statements of one row.
fn place(row: &Asked<'_>) -> String {
    let digest = hex(row.digest.as_bytes());
    format!("WHERE space = {} AND digest = {digest}", space::id(row.space))
}

/// The rows at `at` are all of one kind and one space.
pub(crate) fn piece(rows: &[Asked<'_>], kind: RowKind, at: Vec<usize>) -> Piece {
    let of_piece: Vec<&Asked<'_>> = at.iter().map(|at| &rows[*at]).collect();
    let mut script = Script::default();
    script.push(NOW);
    if kind == RowKind::Look {
        let found = script.push(&select(&of_piece, ""));
        // Rows at the end could not be told from an error after some of them.
        script.push("DO 0");
        return Piece { script, at, answering: Answering::Found(found) };
    }
    script.push("START TRANSACTION");
    let answering = match kind {
        RowKind::Observe => {
            script.push(&observe(&of_piece));
            Answering::Found(script.push(&select(&of_piece, "")))
        }
        RowKind::Claim => {
            of_piece.iter().filter_map(|row| follow(row)).for_each(|follow| {
                script.push(&follow);
            });
            script.push(&claim(&of_piece));
            Answering::Found(script.push(&select(&of_piece, "")))
        }
        RowKind::Forget => forget(&of_piece, &mut script),
        _ => {
            let first = script.statements;
            of_piece.iter().for_each(|row| {
                script.push(&update(row));
            });
            Answering::Matched(first)
        }
    };
    script.push("COMMIT");
    Piece { script, at, answering }
}

/// What is there; after an insert, who has the row.
fn select(rows: &[&Asked<'_>], lock: &str) -> String {
    let Some(first) = rows.first() else { return "DO 0".to_owned() };
    let space = space::id(first.space);
    let digests = list(rows.iter().map(|row| row.digest.as_bytes()));
    format!(
        "SELECT digest, state, token, fence, seen, live_until, expires, value, @now
         FROM onceonly_rows FORCE INDEX (PRIMARY)
         WHERE space = {space} AND digest IN ({digests}){lock}"
    )
}

fn values<'a>(rows: &[&'a Asked<'a>], value: impl Fn(&'a RowOp<'a>) -> Option<String>) -> String {
    let row = |row: &&'a Asked<'a>| {
        let (space, digest) = (space::id(row.space), hex(row.digest.as_bytes()));
        value(&row.op).map(|rest| format!("({space}, {digest}, {rest})"))
    };
    let rows: Vec<String> = rows.iter().filter_map(row).collect();
    let columns = "space, digest, state, token, fence, seen, live_until, expires, value";
    format!("INSERT INTO onceonly_rows ({columns}) VALUES {}", rows.join(", "))
}

fn observe(rows: &[&Asked<'_>]) -> String {
    let insert = values(rows, |op| match op {
        RowOp::Observe { token, keep, value } => {
            let (token, keep) = (hex(token.as_bytes()), micros(*keep));
            let ends = format!("@now + {keep}, @now + {keep}");
            Some(format!("{MARKED}, {token}, 0, @now, {ends}, {}", hex(value)))
        }
        _ => None,
    });
    let set = |column| format!("{column} = IF(live_until <= @now, VALUES({column}), {column})");
    let columns = ["state", "token", "seen", "expires", "value", "live_until"].map(set).join(", ");
    format!("{insert} ON DUPLICATE KEY UPDATE {columns}")
}

fn claim(rows: &[&Asked<'_>]) -> String {
    let insert = values(rows, |op| match op {
        RowOp::Claim { token, lease, keep, value, .. } => {
            let (token, lease, keep) = (hex(token.as_bytes()), micros(*lease), micros(*keep));
            let ends = format!("@now + {lease}, @now + {lease} + {keep}");
            Some(format!("{CLAIMED}, {token}, @now, 0, {ends}, {}", hex(value)))
        }
        _ => None,
    });
    // An own claim is granted once more, with the fence that it had.
    let own = format!("state = {CLAIMED} AND token = VALUES(token)");
    let fence = format!(
        "fence = IF({own} AND expires > @now, fence,
         IF(live_until <= @now, GREATEST(VALUES(fence), fence + 1), fence))"
    );
    let set =
        |column| format!("{column} = IF(live_until <= @now OR {own}, VALUES({column}), {column})");
    let columns = ["seen", "expires", "value", "state", "token", "live_until"].map(set).join(", ");
    format!("{insert} ON DUPLICATE KEY UPDATE {fence}, {columns}")
}

/// Takes over from an owner that is known to be dead; then the claim is the caller's own.
fn follow(row: &Asked<'_>) -> Option<String> {
    let RowOp::Claim { token, previous: Some(previous), .. } = row.op else { return None };
    let (token, previous) = (hex(token.as_bytes()), hex(previous.as_bytes()));
    Some(format!(
        "UPDATE onceonly_rows SET token = {token}, fence = GREATEST(@now, fence + 1) {} AND
         state = {CLAIMED} AND token = {previous} AND expires > @now",
        place(row)
    ))
}

fn is_of(token: Token, states: &str) -> String {
    let token = hex(token.as_bytes());
    format!("token = {token} AND state IN ({states}) AND expires > @now")
}

/// A step that matches its row, or does not.
fn update(row: &Asked<'_>) -> String {
    let (set, condition) = match row.op {
        RowOp::Refresh { keep } => {
            let ends = format!("@now + {}", micros(keep));
            let set = format!("seen = @now, expires = {ends}, live_until = {ends}");
            (set, format!("state = {MARKED} AND live_until > @now"))
        }
        RowOp::Renew { token, lease, keep } => {
            let (lease, keep) = (micros(lease), micros(keep));
            let set = format!("live_until = @now + {lease}, expires = @now + {lease} + {keep}");
            (set, is_of(token, &CLAIMED.to_string()))
        }
        RowOp::Commit { token, keep, value } => {
            // What was marked by a commit before stays as it is.
            let set = |column: &str, new: &str| {
                format!("{column} = IF(state = {CLAIMED}, {new}, {column}), ")
            };
            let ends = format!("@now + {}", micros(keep));
            let mut all = set("seen", "@now") + &set("expires", &ends) + &set("live_until", &ends);
            if !value.is_empty() {
                all += &set("value", &hex(value));
            }
            (all + &format!("state = {MARKED}"), is_of(token, &format!("{MARKED}, {CLAIMED}")))
        }
        RowOp::Abandon { token } => {
            let condition = format!("token = {} AND state <> {CANCELLED}", hex(token.as_bytes()));
            (cancelled(), condition)
        }
        _ => return "DO 0".to_owned(),
    };
    format!("UPDATE onceonly_rows SET {set} {} AND {condition}", place(row))
}

fn cancelled() -> String {
    format!("state = {CANCELLED}, live_until = 0, expires = @now, value = ''")
}

/// The numbers of the log are given under the lock of the space, which is held until the commit:
/// whoever has the next number commits later.
fn forget(rows: &[&Asked<'_>], script: &mut Script) -> Answering {
    let Some(first) = rows.first() else { return Answering::Matched(0) };
    let space = space::id(first.space);
    let found = script.push(&select(rows, " FOR UPDATE"));
    let digests = list(rows.iter().map(|row| row.digest.as_bytes()));
    script.push(&format!(
        "UPDATE onceonly_rows FORCE INDEX (PRIMARY) SET {}
         WHERE space = {space} AND digest IN ({digests})",
        cancelled()
    ));
    let count = rows.len();
    script.push(&space::make(first.space, Some(count)));
    script.push(&format!(
        "SELECT forgotten - {count} INTO @before FROM onceonly_spaces WHERE id = {space}"
    ));
    let entry = |(at, row): (usize, &&Asked<'_>)| match row.op {
        RowOp::Forget { keep } => {
            let (keep, digest) = (micros(keep), hex(row.digest.as_bytes()));
            Some(format!("({space}, @before + {}, @now + {keep}, {digest})", at + 1))
        }
        _ => None,
    };
    let entries: Vec<String> = rows.iter().enumerate().filter_map(entry).collect();
    script.push(&format!(
        "INSERT INTO onceonly_forgotten (space, number, expires, digest) VALUES {}",
        entries.join(", ")
    ));
    Answering::Forgotten(found)
}

/// The answer to a step that matched its row, or did not.
pub(crate) fn matched(kind: RowKind, matched: bool) -> RowAnswer {
    match kind {
        RowKind::Refresh if matched => RowAnswer::Refreshed,
        RowKind::Renew if matched => RowAnswer::Renewed,
        RowKind::Commit if matched => RowAnswer::Committed,
        RowKind::Abandon => RowAnswer::Abandoned,
        RowKind::Refresh => RowAnswer::Absent,
        _ => RowAnswer::Lost,
    }
}

/// The answer to a claim that was granted.
pub(crate) fn granted(fence: i64) -> RowAnswer {
    RowAnswer::Granted { fence: unsigned(fence) }
}
