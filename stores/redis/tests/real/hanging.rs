//! Servers that do not answer: deadlines are kept, late replies are read by nobody.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onceonly::authority::{Authority, AuthorityError, RowAnswer, RowOp};

use crate::asking::{SPACE, ask, digests, is_duplicate, observe, soon, text, token};
use crate::server::Server;

const DEADLINE: Duration = Duration::from_millis(300);
/// How much later than its deadline a call may return here, where other tests run too.
const LATE: Duration = Duration::from_millis(700);

#[test]
fn a_frozen_server_is_an_error_in_time_and_its_late_replies_are_read_by_nobody() {
    let server = Server::start(&[]);
    let authority = server.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let (marked, fresh) = (digests(50), digests(50));
    ask(&authority, &marked, observe, soon()).unwrap();
    let tokens: HashMap<_, _> = fresh.iter().map(|digest| (*digest, token())).collect();
    let ask_for_fresh = |deadline| {
        let mut turn = fresh.iter();
        let op = || RowOp::Observe {
            token: tokens[turn.next().unwrap()],
            keep: crate::asking::HOUR,
            value: &[],
        };
        ask(&authority, &fresh, op, deadline)
    };
    server.freeze();
    // Five at once, on connections that were open and on new ones.
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let begun = Instant::now();
                let failed = ask_for_fresh(begun + DEADLINE).unwrap_err();
                assert!(failed.is_transient(), "{}", text(&failed));
                assert!(begun.elapsed() < DEADLINE + LATE, "{:?}", begun.elapsed());
            });
        }
    });
    let begun = Instant::now();
    assert!(authority.open(SPACE, 7, begun + DEADLINE).is_err());
    assert!(begun.elapsed() < DEADLINE + LATE, "{:?}", begun.elapsed());
    server.thaw();
    // All different from what the late replies say.
    for _ in 0..20 {
        let answers = ask(&authority, &marked, || RowOp::Look, soon()).unwrap();
        assert!(answers.rows.iter().all(|answer| is_duplicate(answer.as_ref().unwrap())));
        let absent = ask(&authority, &digests(50), || RowOp::Look, soon()).unwrap();
        assert!(absent.rows.iter().all(|answer| *answer.as_ref().unwrap() == RowAnswer::Absent));
    }
    // The same tokens: whether it was applied or not, it is ours.
    let answers = ask_for_fresh(soon()).unwrap();
    assert!(answers.rows.iter().all(|answer| *answer.as_ref().unwrap() == RowAnswer::Marked));
}

#[test]
fn what_was_sent_and_not_answered_is_undecided() {
    let server = Server::start(&[]);
    let authority = server.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    ask(&authority, &digests(1), observe, soon()).unwrap();
    server.freeze();
    let failed = ask(&authority, &digests(1), observe, Instant::now() + DEADLINE).unwrap_err();
    assert!(matches!(failed, AuthorityError::Undecided(_)), "{}", text(&failed));
    // No connection comes about any more, so nothing is sent.
    let failed = ask(&authority, &digests(1), observe, Instant::now() + DEADLINE).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{}", text(&failed));
    let failed = ask(&authority, &digests(1), observe, Instant::now()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{}", text(&failed));
    server.thaw();
}

#[test]
fn a_server_that_is_not_there_says_so_at_once() {
    let mut server = Server::start(&[]);
    let authority = server.authority();
    server.kill();
    let begun = Instant::now();
    let failed = authority.open(SPACE, 7, soon()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{}", text(&failed));
    assert!(text(&failed).contains(&format!("127.0.0.1:{}", server.port)), "{}", text(&failed));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
