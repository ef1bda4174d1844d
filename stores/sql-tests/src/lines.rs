//! What a client does when the line to its server fails.

use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::{Authority, AuthorityError, Result, Row, RowAnswer, RowOp};

use crate::{Line, Proxy, observe, soon};

const SHORT: Duration = Duration::from_millis(400);
/// A machine that has other things to do is given so much more.
const PROMPT: Duration = Duration::from_secs(3);

fn one(authority: &dyn Authority, row: Row<'_>, deadline: Instant) -> Result<RowAnswer> {
    let mut answers = authority.rows(&[row], deadline)?;
    answers.rows.pop().unwrap_or_else(|| Err(AuthorityError::refused("no answer to a row")))
}

/// Fails within its deadline, or shortly after.
fn fails(authority: &dyn Authority, row: Row<'_>) -> AuthorityError {
    let before = Instant::now();
    let failed = one(authority, row, before + SHORT);
    let took = before.elapsed();
    assert!(took < SHORT + PROMPT, "it took {took:?} of {SHORT:?}");
    match failed {
        Err(error) => error,
        Ok(answer) => panic!("answered {answer:?} over a line that does not work"),
    }
}

fn is_transient(error: &AuthorityError) -> bool {
    matches!(error, AuthorityError::Transient(_))
}

/// Every way that a line can fail: the error comes in time and says whether it may have been
/// applied, the next call finds out, and it works again when the line does.
pub fn lines_fail(direct: &dyn Authority, proxy: &Proxy, connect: impl Fn() -> Box<dyn Authority>) {
    let space = "behind-a-line";
    direct.open(space, 7, soon()).unwrap_or_else(|error| panic!("{error:?}"));
    let over = connect();
    over.open(space, 7, soon()).unwrap_or_else(|error| panic!("{error:?}"));
    let marked = |row: Row<'_>| {
        let answer = one(&*over, row, soon()).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(answer, RowAnswer::Marked);
    };
    marked(observe(space, 1, 1));
    for (digest, line) in [(2, Line::Hangs), (3, Line::LosesReplies), (4, Line::CutsReplies)] {
        proxy.set(line);
        let failed = fails(&*over, observe(space, digest, digest));
        if is_transient(&failed) {
            // A client may look whether the line works before it sends anything.
            let look = Row { op: RowOp::Look, ..observe(space, digest, digest) };
            let absent = one(direct, look, soon()).unwrap_or_else(|error| panic!("{error:?}"));
            assert_eq!(absent, RowAnswer::Absent, "{line:?}: {failed:?}");
        } else {
            assert!(matches!(failed, AuthorityError::Undecided(_)), "{line:?}: {failed:?}");
        }
        proxy.set(Line::Works);
        // It was applied, or is when this arrives; either way it is ours.
        marked(observe(space, digest, digest));
        let other = one(direct, observe(space, digest, 99), soon());
        assert!(matches!(other, Ok(RowAnswer::Duplicate { .. })), "{line:?}: {other:?}");
    }
    proxy.set(Line::IsCut);
    thread::sleep(Duration::from_millis(500));
    let failed = fails(&*over, observe(space, 5, 5));
    // Idle connections were closed, so nothing was sent.
    assert!(is_transient(&failed), "{failed:?}");
    let look = Row { op: RowOp::Look, ..observe(space, 5, 5) };
    let absent = one(direct, look, soon()).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(absent, RowAnswer::Absent);
    proxy.set(Line::Works);
    marked(observe(space, 5, 5));
    nothing_answers(proxy, &*connect());
    marked(observe(space, 6, 6));
}

/// A server that takes connections and says nothing.
fn nothing_answers(proxy: &Proxy, fresh: &dyn Authority) {
    proxy.set(Line::Hangs);
    let before = Instant::now();
    let opened = fresh.open("behind-a-line", 7, before + SHORT);
    assert!(before.elapsed() < SHORT + PROMPT, "{:?}", before.elapsed());
    match opened {
        Err(error) => assert!(is_transient(&error), "{error:?}"),
        Ok(opened) => panic!("{opened:?}"),
    }
    proxy.set(Line::Works);
}
