//! Commits in the user's own transaction, over a connection of his own.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::{Authority, Dialect, Row, RowAnswer, RowOp, SqlValue, Token};
use onceonly::{Claim, ClaimGuard, CommitStatement, Dedup, Error, Ownership};

use crate::{LONG, claim, soon};

/// Ends while the test waits for it, and not before a slow machine has come so far.
const SHORT: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_millis(600);
/// A machine that has other things to do is given so much more.
const PROMPT: Duration = Duration::from_secs(3);
const DIALECTS: [Dialect; 3] = [Dialect::Postgres, Dialect::Mysql, Dialect::Sqlite];

/// A connection of the user's. What fails panics.
pub trait Session {
    /// Statements without parameters and without rows.
    fn batch(&mut self, sql: &str);
    /// A statement; returns how many rows it changed.
    fn execute(&mut self, sql: &str, params: &[SqlValue]) -> u64;
}

/// A database, as an authority and as the user has it.
pub struct Inbox {
    /// What it speaks.
    pub dialect: Dialect,
    /// A client of its own for each store.
    pub connect: Box<dyn Fn() -> Arc<dyn Authority>>,
    /// A connection of the user's.
    pub session: Box<dyn Fn() -> Box<dyn Session>>,
}

fn granted(store: &Dedup, key: &str) -> ClaimGuard {
    match store.claim(key) {
        Ok(Claim::Granted(guard)) => guard,
        other => panic!("{key}: {other:?}"),
    }
}

fn is_duplicate(store: &Dedup, key: &str) -> bool {
    matches!(store.claim(key), Ok(Claim::Duplicate { .. }))
}

fn is_in_flight(store: &Dedup, key: &str) -> bool {
    matches!(store.claim(key), Ok(Claim::InFlight { .. }))
}

/// Asks until the lease of the last owner is over.
fn granted_in_time(store: &Dedup, key: &str) -> ClaimGuard {
    let until = soon();
    loop {
        match store.claim(key) {
            Ok(Claim::Granted(guard)) => return guard,
            Ok(Claim::InFlight { .. }) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(20));
            }
            other => panic!("{key}: {other:?}"),
        }
    }
}

impl Inbox {
    fn store(&self, lease: Duration, deadline: Duration) -> Dedup {
        Dedup::builder()
            .window(Duration::from_secs(3_600))
            .expected_keys(10_000)
            .secret([7; 32])
            .lease(lease)
            .authority((self.connect)(), Ownership::Shared)
            .authority_space("inbox")
            .authority_deadline(deadline)
            .in_memory()
            .unwrap_or_else(|error| panic!("a store does not open: {error:?}"))
    }

    fn pair(&self, lease: Duration) -> (Dedup, Dedup) {
        (self.store(lease, LONG), self.store(lease, LONG))
    }

    fn statement(&self, guard: ClaimGuard) -> CommitStatement {
        guard.commit_statement(self.dialect).unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// Marked with the transaction, for the store that did it and for all others.
    pub fn what_is_committed_is_a_duplicate_for_all(&self) {
        let (a, b) = self.pair(LONG);
        let statement = self.statement(granted(&a, "1"));
        let mut session = (self.session)();
        session.batch("BEGIN");
        let rows = session.execute(statement.sql(), statement.params());
        assert_eq!(rows, 1);
        let marked = statement.applied(rows).unwrap_or_else(|error| panic!("{error:?}"));
        session.batch("COMMIT");
        assert!(is_duplicate(&b, "1"));
        marked.confirm().unwrap_or_else(|error| panic!("{error:?}"));
        assert!(is_duplicate(&a, "1") && is_duplicate(&self.store(LONG, LONG), "1"));
    }

    /// Rolled back: as if it had never been, when the lease is over or the claim is given back.
    pub fn what_is_rolled_back_is_granted_again(&self) {
        let (a, b) = self.pair(SHORT);
        let mut session = (self.session)();
        let mut rolled_back = |statement: CommitStatement| {
            session.batch("BEGIN");
            let rows = session.execute(statement.sql(), statement.params());
            let marked = statement.applied(rows).unwrap_or_else(|error| panic!("{error:?}"));
            session.batch("ROLLBACK");
            marked
        };
        rolled_back(self.statement(granted(&a, "1"))).rolled_back().abandon();
        granted(&b, "1").abandon();
        // Somebody who forgets all about it.
        drop(rolled_back(self.statement(granted(&a, "2"))));
        assert!(is_in_flight(&a, "2") && is_in_flight(&b, "2"));
        granted_in_time(&b, "2").commit().unwrap_or_else(|error| panic!("{error:?}"));
        assert!(is_duplicate(&a, "2"));
    }

    /// Who was taken over, or whose key was forgotten, changes no row.
    pub fn a_late_owner_changes_nothing(&self) {
        let (a, b) = self.pair(SHORT);
        let late = self.statement(granted(&a, "1"));
        let owner = granted_in_time(&b, "1");
        let forgotten = self.statement(granted(&a, "2"));
        assert!(!b.forget("2").unwrap_or_else(|error| panic!("{error:?}")));
        let mut session = (self.session)();
        for statement in [late, forgotten] {
            session.batch("BEGIN");
            let rows = session.execute(statement.sql(), statement.params());
            assert_eq!(rows, 0);
            session.batch("ROLLBACK");
            match statement.applied(rows) {
                Err(error) => assert!(matches!(error.error(), Error::LeaseLost { .. })),
                Ok(marked) => panic!("{marked:?}"),
            }
        }
        owner.commit().unwrap_or_else(|error| panic!("{error:?}"));
        assert!(is_duplicate(&a, "1") && is_duplicate(&b, "1"));
        granted(&a, "2").abandon();
    }

    /// Once more in the same transaction, or in another one after the first was committed.
    pub fn it_may_be_run_twice(&self) {
        let (a, b) = self.pair(LONG);
        let statement = self.statement(granted(&a, "1"));
        let mut session = (self.session)();
        for _ in 0..2 {
            session.batch("BEGIN");
            assert_eq!(session.execute(statement.sql(), statement.params()), 1);
            assert_eq!(session.execute(statement.sql(), statement.params()), 1);
            session.batch("COMMIT");
        }
        let marked = statement.applied(1).unwrap_or_else(|error| panic!("{error:?}"));
        marked.confirm().unwrap_or_else(|error| panic!("{error:?}"));
        assert!(is_duplicate(&b, "1"));
    }

    /// While a transaction is open others get no wrong answer, and get it in time; they may get an error.
    pub fn others_do_not_wait_for_an_open_transaction(&self) {
        let a = self.store(SHORT, LONG);
        let b = self.store(SHORT, DEADLINE);
        let (committed, rolled_back) = (granted(&a, "1"), granted(&a, "2"));
        let (committed, rolled_back) = (self.statement(committed), self.statement(rolled_back));
        let mut session = (self.session)();
        let waits = |key: &str, moment: &str| {
            let before = Instant::now();
            let claim = b.claim(key);
            let took = before.elapsed();
            assert!(took < DEADLINE * 4 + PROMPT, "{moment}: it took {took:?}");
            let is_right = match &claim {
                Ok(claim) => matches!(claim, Claim::InFlight { .. }),
                Err(error) => error.is_transient(),
            };
            assert!(is_right, "{moment}: {claim:?}");
        };
        let mut hold = |statement: CommitStatement, key: &str, end: &str| {
            session.batch("BEGIN");
            let rows = session.execute(statement.sql(), statement.params());
            waits(key, "in its lease");
            thread::sleep(SHORT);
            // The claim could be taken over by now, if the row was not locked.
            waits(key, "after its lease");
            session.batch(end);
            statement.applied(rows).unwrap_or_else(|error| panic!("{error:?}"))
        };
        let marked = hold(committed, "1", "COMMIT");
        assert!(is_duplicate(&self.store(SHORT, LONG), "1"));
        marked.confirm().unwrap_or_else(|error| panic!("{error:?}"));
        self.is_told_in_the_end(&b, "1", |claim| matches!(claim, Claim::Duplicate { .. }));
        granted_in_time(&a, "2").abandon();
        let rolled_back = rolled_back.into_guard();
        assert!(rolled_back.commit().is_err(), "its claim was taken over");
        let held = self.statement(granted(&a, "3"));
        drop(hold(held, "3", "ROLLBACK"));
        self.is_told_in_the_end(&b, "3", |claim| matches!(claim, Claim::Granted(_)));
    }

    /// After errors the engine may refuse to ask for a moment.
    fn is_told_in_the_end(&self, store: &Dedup, key: &str, is_right: impl Fn(&Claim) -> bool) {
        let until = soon();
        loop {
            match store.claim(key) {
                Ok(claim) if is_right(&claim) => return,
                Err(error) if error.is_transient() && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(50));
                }
                other => panic!("{key}, {}: {other:?}", self.dialect),
            }
        }
    }

    /// The connection broke in the commit: the server knows how it ended.
    pub fn confirming_tells_what_became_of_a_commit(&self) {
        let (a, b) = self.pair(SHORT);
        let run = |key: &str| {
            let statement = self.statement(granted(&a, key));
            let mut session = (self.session)();
            session.batch("BEGIN");
            let rows = session.execute(statement.sql(), statement.params());
            (session, statement.applied(rows).unwrap_or_else(|error| panic!("{error:?}")))
        };
        let (mut session, went_through) = run("1");
        session.batch("COMMIT");
        drop(session);
        went_through.confirm().unwrap_or_else(|error| panic!("{error:?}"));
        assert!(is_duplicate(&a, "1") && is_duplicate(&b, "1"));
        let (session, broke) = run("2");
        drop(session);
        match broke.confirm() {
            Err(error) => {
                let is_right = matches!(error.error(), Error::InFlight { .. });
                assert!(is_right, "{:?}", error.error());
                error.into_parts().0.abandon();
            }
            Ok(()) => panic!("what was rolled back is confirmed"),
        }
        let taken = granted_in_time(&b, "2");
        taken.commit().unwrap_or_else(|error| panic!("{error:?}"));
        assert!(is_duplicate(&a, "2"));
    }

    /// It does to the row what the authority's own commit does.
    pub fn the_row_is_as_the_own_commit_leaves_it(&self) {
        let authority = (self.connect)();
        let opened = authority.open("rows of 'the' inbox", 7, soon());
        opened.unwrap_or_else(|error| panic!("{error:?}"));
        let mut session = (self.session)();
        let rows = Rows { authority: &*authority, space: "rows of 'the' inbox" };
        let mut run = |row: &Row<'_>| {
            let statement = authority.statement(row, self.dialect);
            let statement = statement.unwrap_or_else(|| panic!("no statement"));
            session.execute(&statement.sql, &statement.params)
        };
        rows.ask(claim(rows.space, 1, 1));
        assert_eq!(run(&rows.commit(1, 2, LONG, b"")), 0, "of another token");
        assert_eq!(run(&rows.commit(2, 1, LONG, b"")), 0, "of another digest");
        assert!(matches!(rows.look(1), RowAnswer::InFlight { .. }));
        let before = Instant::now();
        assert_eq!(run(&rows.commit(1, 1, LONG, b"")), 1);
        let at_first = rows.age(1);
        assert!(at_first <= before.elapsed() + Duration::from_millis(2), "{at_first:?}");
        thread::sleep(Duration::from_millis(200));
        assert_eq!(run(&rows.commit(1, 1, LONG, b"another")), 1);
        assert!(rows.age(1) >= Duration::from_millis(150), "it is marked anew");
        let stays = |value: &[u8]| value.is_empty();
        assert!(matches!(rows.look(1), RowAnswer::Duplicate { value, .. } if stays(&value)));
        assert_eq!(rows.ask(rows.commit(1, 1, LONG, b"")), RowAnswer::Committed);
        // A value, as with the own commit.
        rows.ask(claim(rows.space, 3, 1));
        assert_eq!(run(&rows.commit(3, 1, LONG, b"\0\xff'")), 1);
        match rows.look(3) {
            RowAnswer::Duplicate { value, .. } => assert_eq!(value, b"\0\xff'"),
            other => panic!("{other:?}"),
        }
        // It lives as long as it was told, from the statement on; then it is as if it was not there.
        let keep = Duration::from_millis(1_000);
        rows.ask(claim(rows.space, 4, 1));
        let before = Instant::now();
        assert_eq!(run(&rows.commit(4, 1, keep, b"")), 1);
        let is_live = matches!(rows.look(4), RowAnswer::Duplicate { .. });
        assert!(is_live || before.elapsed() > keep);
        thread::sleep(keep + Duration::from_millis(20));
        assert_eq!(rows.look(4), RowAnswer::Absent);
        assert_eq!(run(&rows.commit(4, 1, keep, b"")), 0);
    }

    /// Other databases, and what is no commit.
    pub fn there_is_none_for_others(&self) {
        let authority = (self.connect)();
        let rows = Rows { authority: &*authority, space: "inbox" };
        for dialect in DIALECTS {
            let statement = authority.statement(&rows.commit(1, 1, LONG, b""), dialect);
            assert_eq!(statement.is_some(), dialect == self.dialect, "{dialect}");
            assert_eq!(authority.statement(&claim("inbox", 1, 1), dialect), None);
        }
    }
}

/// Single rows of an authority.
struct Rows<'a> {
    authority: &'a dyn Authority,
    space: &'a str,
}

impl Rows<'_> {
    fn commit<'a>(&'a self, digest: u8, token: u8, keep: Duration, value: &'a [u8]) -> Row<'a> {
        let op = RowOp::Commit { token: Token::from_bytes([token; 16]), keep, value };
        Row { op, ..claim(self.space, digest, 0) }
    }

    fn ask(&self, row: Row<'_>) -> RowAnswer {
        let answers = self.authority.rows(&[row], soon()).map(|mut answers| answers.rows.pop());
        match answers {
            Ok(Some(Ok(answer))) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn look(&self, digest: u8) -> RowAnswer {
        self.ask(Row { op: RowOp::Look, ..claim(self.space, digest, 0) })
    }

    fn age(&self, digest: u8) -> Duration {
        match self.look(digest) {
            RowAnswer::Duplicate { age, .. } => age,
            other => panic!("{other:?}"),
        }
    }
}
