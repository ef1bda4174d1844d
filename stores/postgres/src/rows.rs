//! Rows: sorted by what is to be done, one statement a kind, all sent before the first reply comes.

use std::cell::RefCell;
use std::time::Instant;

use futures_util::future::join_all;
use onceonly::authority::{Answers, AuthorityError, Result, Row, RowAnswer, RowKind, Server};
use onceonly_sql_common::{Backoff, unknown};
use tokio_postgres::Error;

use crate::asks::{Reply, ask};
use crate::error::{is_passing, of_statement};
use crate::server::{Passing, PostgresServer};
use crate::session::Link;
use crate::space;

/// What is known of the answers so far.
struct Told<'a> {
    rows: &'a [Row<'a>],
    answers: Vec<Option<Result<RowAnswer>>>,
    /// Claims with an earlier owner that was not there: they are claims like others.
    no_previous: Vec<bool>,
    /// Why the rest have no answer yet.
    why: Option<String>,
}

pub(crate) fn rows(
    server: &PostgresServer,
    rows: &[Row<'_>],
    deadline: Instant,
) -> Result<Answers> {
    let answers = rows.iter().map(|row| unknown(row.op.kind())).collect();
    let told =
        RefCell::new(Told { rows, answers, no_previous: vec![false; rows.len()], why: None });
    let mut seen: Option<Server> = None;
    let mut backoff = Backoff::until(deadline);
    let error = loop {
        match server.attempt(deadline, async |link: &Link| attempt(link, &told).await) {
            Err(error) => break Some(error),
            Ok(Err(Passing(error))) => told.borrow_mut().why = Some(error_text(&error)),
            Ok(Ok((server, ()))) => seen = Some(server),
        }
        if told.borrow().answers.iter().all(Option::is_some) {
            break None;
        }
        if !backoff.wait() {
            let why = told.borrow_mut().why.take();
            let why = why.unwrap_or_else(|| "others changed the same rows all the time".to_owned());
            break Some(AuthorityError::transient(why));
        }
    };
    let told = told.into_inner();
    match (seen, error) {
        // What was answered is of no use without the server's state.
        (None, None) => Err(AuthorityError::undecided("no answer about the server")),
        (None, Some(error)) if told.answers.iter().all(Option::is_none) => Err(error),
        (None, Some(error)) => Err(AuthorityError::undecided(error)),
        (Some(server), error) => {
            let rest = || error.as_ref().map_or_else(|| again("no answer"), like);
            let answers =
                told.answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(rest())));
            Ok(Answers { server, rows: answers.collect() })
        }
    }
}

fn again(why: &str) -> AuthorityError {
    AuthorityError::transient(why.to_owned())
}

fn error_text(error: &AuthorityError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), full_text)
}

/// What an error says, and what is behind it.
fn full_text(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", full_text(source)),
        None => error.to_string(),
    }
}

/// The same error once more.
fn like(error: &AuthorityError) -> AuthorityError {
    let text = error_text(error);
    match error {
        AuthorityError::Refused(_) => AuthorityError::refused(text),
        AuthorityError::Transient(_) => AuthorityError::transient(text),
        _ => AuthorityError::undecided(text),
    }
}

/// Asks for all rows that have no answer yet. Fails with the error of all of them, if there is one.
async fn attempt(link: &Link, told: &RefCell<Told<'_>>) -> Result<(), Error> {
    let groups = told.borrow().groups();
    let rows = told.borrow().rows;
    let asked = groups.iter().map(|group| ask(link, rows, group.kind, &group.at, group.after));
    let replies = join_all(asked).await;
    let mut failed = None;
    let mut unknown = Vec::new();
    let answered = replies.iter().any(Result::is_ok);
    for (group, reply) in groups.iter().zip(replies) {
        let told = &mut *told.borrow_mut();
        match reply {
            Ok(replies) => told.take(group, replies, &mut unknown),
            Err(error) if answered => told.fail(&group.at, error),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if unknown.is_empty() { Ok(()) } else { space::make(link, &unknown).await }
}

/// Rows that one statement asks for.
struct Group {
    kind: RowKind,
    /// Claims after an owner that is known to be dead.
    after: bool,
    at: Vec<usize>,
}

impl<'a> Told<'a> {
    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            if self.answers[at].is_some() {
                continue;
            }
            let kind = row.op.kind();
            let after = !self.no_previous[at] && crate::asks::has_previous(&row.op);
            match groups.iter_mut().find(|group| group.kind == kind && group.after == after) {
                Some(group) => group.at.push(at),
                None => groups.push(Group { kind, after, at: vec![at] }),
            }
        }
        groups
    }

    fn take(&mut self, group: &Group, replies: Vec<Reply>, unknown: &mut Vec<&'a str>) {
        for (at, reply) in group.at.iter().zip(replies) {
            match reply {
                Reply::Answer(answer) => self.answers[*at] = Some(Ok(answer)),
                Reply::NoPrevious => self.no_previous[*at] = true,
                Reply::Again => {}
                Reply::NoSpace => {
                    let name = self.rows[*at].space;
                    if !unknown.contains(&name) {
                        unknown.push(name);
                    }
                }
            }
        }
    }

    /// A statement failed, others of the same call did not.
    fn fail(&mut self, group: &[usize], error: Error) {
        let passing = is_passing(&error);
        let error = of_statement(error);
        if passing {
            self.why = Some(error_text(&error));
            return;
        }
        for at in group {
            self.answers[*at] = Some(Err(like(&error)));
        }
    }
}
