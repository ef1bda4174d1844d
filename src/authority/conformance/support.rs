//! Two clients, a space of their own, and shorthands.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::authority::{
    Acquire, Acquired, Authority, AuthorityError, Digest, Progress, Row, RowAnswer, RowOp, Token,
};
use crate::random;
use crate::time::Timestamp;

pub(super) type Tried<T = ()> = Result<T, String>;

/// Long enough for every answer.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// A lease or a mark that is waited for.
pub(super) const SHORT: Duration = Duration::from_millis(250);
/// How much later than it has to a server may notice that something is over.
const SLACK: Duration = Duration::from_millis(100);
/// Within this any call returns when its deadline has passed already.
const PROMPT: Duration = Duration::from_secs(5);

pub(super) struct Bench<'a> {
    pub(super) connect: &'a (dyn Fn() -> Box<dyn Authority> + Sync),
    pub(super) a: Box<dyn Authority>,
    pub(super) b: Box<dyn Authority>,
    pub(super) space: String,
}

impl<'a> Bench<'a> {
    pub(super) fn new(connect: &'a (dyn Fn() -> Box<dyn Authority> + Sync)) -> Tried<Self> {
        let (a, b) = (connect(), connect());
        let bench = Bench { connect, a, b, space: another_space() };
        for client in [&bench.a, &bench.b] {
            said("open", client.open(&bench.space, CHECK, soon()))?;
        }
        Ok(bench)
    }

    /// One row by the first client.
    pub(super) fn row(&self, digest: Digest, op: RowOp<'_>) -> Tried<RowAnswer> {
        row(&*self.a, &self.space, digest, op)
    }

    /// One row by the second client.
    pub(super) fn row_of_b(&self, digest: Digest, op: RowOp<'_>) -> Tried<RowAnswer> {
        row(&*self.b, &self.space, digest, op)
    }

    /// Asks the second client until the row is absent, and fails when that is too early or too late
    /// for something that lives for `span` and began between `began.0` and `began.1`.
    pub(super) fn ends(
        &self,
        digest: Digest,
        began: (Instant, Instant),
        span: Duration,
    ) -> Tried<()> {
        loop {
            let sent = Instant::now();
            let answer = self.row_of_b(digest, RowOp::Look)?;
            let received = Instant::now();
            if answer == RowAnswer::Absent {
                // Servers that count in milliseconds may round down the time of its begin.
                let least = span.saturating_sub(Duration::from_millis(2));
                let early = received < began.0 + least;
                return ensure(!early, || format!("it was over before {span:?} had passed"));
            }
            ensure(sent < began.1 + span + SLACK, || {
                format!("still {answer:?} more than {SLACK:?} after {span:?} had passed")
            })?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub(super) const CHECK: u64 = 0x5eed;

pub(super) fn row(
    client: &dyn Authority,
    space: &str,
    digest: Digest,
    op: RowOp<'_>,
) -> Tried<RowAnswer> {
    let mut answers = said("rows", client.rows(&[Row { space, digest, op }], soon()))?;
    let answer = answers.rows.pop().ok_or("no answer to a row")?;
    said("a row", answer)
}

/// A call and when it was made.
pub(super) fn timed<T>(call: impl FnOnce() -> Tried<T>) -> Tried<(T, (Instant, Instant))> {
    let before = Instant::now();
    let answer = call()?;
    Ok((answer, (before, Instant::now())))
}

/// Repeats `work` with fresh digests until it took less than [`SHORT`] allows: what it looks at was not
/// over meanwhile, however slow the machine is.
pub(super) fn in_time(mut work: impl FnMut() -> Tried<()>) -> Tried<()> {
    for _ in 0..100 {
        let before = Instant::now();
        let done = work();
        if before.elapsed() < SHORT - Duration::from_millis(10) {
            return done;
        }
    }
    Err(format!("a few calls never took less than {SHORT:?} together"))
}

pub(super) fn prompt<T>(call: impl FnOnce() -> T) -> Tried<T> {
    let before = Instant::now();
    let answer = call();
    ensure(before.elapsed() < PROMPT, || {
        format!("it returned {:?} after its deadline", before.elapsed())
    })?;
    Ok(answer)
}

pub(super) fn soon() -> Instant {
    Instant::now() + LONG
}

/// A name that no space has.
pub(super) fn another_space() -> String {
    format!("conformance-{}", token())
}

pub(super) fn token() -> Token {
    let mut bytes = [0; 16];
    random::fill_or_counter(&mut bytes);
    Token::from_bytes(bytes)
}

pub(super) fn digest() -> Digest {
    let mut bytes = [0; 16];
    random::fill_or_counter(&mut bytes);
    Digest::from_bytes(bytes)
}

pub(super) fn said<T>(what: &str, answer: Result<T, AuthorityError>) -> Tried<T> {
    answer.map_err(|error| {
        let source = std::error::Error::source(&error);
        let source = source.map(|source| format!(" ({source})")).unwrap_or_default();
        format!("{what}: {error}{source}")
    })
}

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Tried<()> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub(super) fn expect<T: Debug + PartialEq>(what: &str, found: T, wanted: T) -> Tried<()> {
    ensure(found == wanted, || format!("{what}: {found:?} instead of {wanted:?}"))
}

pub(super) fn duplicate(what: &str, answer: RowAnswer) -> Tried<(Duration, Vec<u8>)> {
    match answer {
        RowAnswer::Duplicate { age, value } => Ok((age, value)),
        other => Err(format!("{what}: {other:?} instead of a duplicate")),
    }
}

pub(super) fn in_flight(what: &str, answer: RowAnswer) -> Tried<(Duration, Vec<u8>)> {
    match answer {
        RowAnswer::InFlight { lease_left, value } => Ok((lease_left, value)),
        other => Err(format!("{what}: {other:?} instead of in flight")),
    }
}

pub(super) fn granted(what: &str, answer: RowAnswer) -> Tried<u64> {
    match answer {
        RowAnswer::Granted { fence } => Ok(fence),
        other => Err(format!("{what}: {other:?} instead of a grant")),
    }
}

pub(super) fn observe(token: Token, keep: Duration) -> RowOp<'static> {
    RowOp::Observe { token, keep, value: &[] }
}

pub(super) fn claim(token: Token, lease: Duration) -> RowOp<'static> {
    RowOp::Claim { token, previous: None, lease, keep: LONG, value: &[] }
}

pub(super) fn commit(token: Token) -> RowOp<'static> {
    RowOp::Commit { token, keep: LONG, value: &[] }
}

pub(super) fn acquire(
    client: &dyn Authority,
    space: &str,
    holder: Token,
    previous: Option<Token>,
    lease: Duration,
) -> Result<Acquired, AuthorityError> {
    client.acquire(space, &Acquire { holder, previous, lease, initial: progress(0) }, soon())
}

pub(super) fn progress(position: u64) -> Progress {
    Progress {
        position,
        complete_since: Timestamp::from_unix_millis(1_700_000_000_000),
        complete_through: Timestamp::from_unix_millis(1_700_000_000_000 + position.cast_signed()),
        layout: 6,
    }
}
