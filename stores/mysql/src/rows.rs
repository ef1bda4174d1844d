//! Rows: sorted by what is to be done, all in one round trip if they are not very large.

use std::cell::RefCell;
use std::time::Instant;

use mysql_async::Error;
use onceonly::authority::{
    Answers, AuthorityError, Result, Row, RowAnswer, RowKind, RowOp, Server,
};
use onceonly_sql_common::{Backoff, unknown};

use crate::answers::answers;
use crate::pieces::{Piece, piece};
use crate::server::{MysqlServer, Passing};
use crate::session::Link;

/// What is known so far.
struct Told<'a> {
    rows: &'a [Row<'a>],
    answers: Vec<Option<Result<RowAnswer>>>,
    server: Option<Server>,
}

pub(crate) fn rows(server: &MysqlServer, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
    let answers = rows.iter().map(|row| unknown(row.op.kind())).collect();
    let told = RefCell::new(Told { rows, answers, server: None });
    let mut backoff = Backoff::until(deadline);
    let error = loop {
        let why = match server.attempt(deadline, async |link| attempt(link, &told).await) {
            Err(error) => break Some(error),
            Ok(Err(Passing(error))) => error,
            Ok(Ok(())) => AuthorityError::transient("others changed the same rows all the time"),
        };
        if told.borrow().answers.iter().all(Option::is_some) {
            break None;
        }
        if !backoff.wait() {
            break Some(why);
        }
    };
    let Told { answers, server, .. } = told.into_inner();
    match (server, error) {
        (None, None) => Err(AuthorityError::undecided("no answer about the server")),
        (None, Some(error)) => Err(error),
        (Some(_), Some(error)) if answers.iter().all(Option::is_none) => Err(error),
        (Some(server), error) => {
            let rest = || Err(error.as_ref().map_or_else(nothing, like));
            let rows = answers.into_iter().map(|answer| answer.unwrap_or_else(rest)).collect();
            Ok(Answers { server, rows })
        }
    }
}

fn nothing() -> AuthorityError {
    AuthorityError::undecided("no answer to the row")
}

/// The same error once more.
fn like(error: &AuthorityError) -> AuthorityError {
    let source = std::error::Error::source(error);
    let text = source.map_or_else(|| error.to_string(), ToString::to_string);
    match error {
        AuthorityError::Refused(_) => AuthorityError::refused(text),
        AuthorityError::Transient(_) => AuthorityError::transient(text),
        _ => AuthorityError::undecided(text),
    }
}

/// Asks for all rows that have no answer yet. What was committed before an error is noted.
async fn attempt(link: &mut Link, told: &RefCell<Told<'_>>) -> Result<(), Error> {
    link.identify().await?;
    let pieces = told.borrow().pieces(link.budget);
    let mut pieces = pieces.into_iter().peekable();
    while pieces.peek().is_some() {
        let mut script = link.prelude();
        let mut sent: Vec<(usize, Piece)> = Vec::new();
        while let Some(next) = pieces.peek() {
            let fits = script.text.len() + next.script.text.len() <= link.budget;
            if !sent.is_empty() && !fits {
                break;
            }
            let first = script.append(&next.script);
            sent.extend(pieces.next().map(|piece| (first, piece)));
        }
        let ran = script.run(&mut link.conn).await;
        let told = &mut *told.borrow_mut();
        told.server = link.server(&ran).or(told.server);
        for (first, piece) in &sent {
            // Its commit was answered, or nothing of it counts.
            if let Some(sets) = ran.sets.get(*first..*first + piece.script.statements) {
                let answers = answers(piece, told.rows, sets);
                for (at, answer) in piece.at.iter().zip(answers) {
                    told.answers[*at] = answer.map(Ok);
                }
            }
        }
        if let Some(error) = ran.error {
            return Err(error);
        }
    }
    Ok(())
}

/// About how much text a row takes.
fn cost(row: &Row<'_>) -> usize {
    let value = match row.op {
        RowOp::Observe { value, .. } | RowOp::Claim { value, .. } | RowOp::Commit { value, .. } => {
            value.len()
        }
        _ => 0,
    };
    // The statement, its digest in two lists, tokens and times.
    500 + 2 * value
}

impl Told<'_> {
    /// Rows of one kind and one space each, none with more text than the budget.
    fn pieces(&self, budget: usize) -> Vec<Piece> {
        struct Open<'a> {
            kind: RowKind,
            space: &'a str,
            cost: usize,
            at: Vec<usize>,
        }
        let (mut open, mut done): (Vec<Open<'_>>, Vec<Piece>) = (Vec::new(), Vec::new());
        for (at, row) in self.rows.iter().enumerate() {
            if self.answers[at].is_some() {
                continue;
            }
            let (kind, cost) = (row.op.kind(), cost(row));
            let same = |open: &&mut Open<'_>| open.kind == kind && open.space == row.space;
            match open.iter_mut().find(same) {
                Some(open) if open.cost + cost <= budget => {
                    open.cost += cost;
                    open.at.push(at);
                }
                Some(full) => {
                    let full_at = std::mem::replace(&mut full.at, vec![at]);
                    full.cost = cost;
                    done.push(piece(self.rows, kind, full_at));
                }
                None => open.push(Open { kind, space: row.space, cost, at: vec![at] }),
            }
        }
        done.extend(open.into_iter().map(|open| piece(self.rows, open.kind, open.at)));
        done
    }
}
