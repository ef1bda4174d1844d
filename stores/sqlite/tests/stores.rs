//! Stores that share a file: of one process, and of several.

use std::sync::Arc;
use std::thread;

use onceonly::authority::{Authority, Row, RowAnswer, RowOp, Token};
use onceonly_sql_tests::{
    Children, KEYS, LONG, claim, is_child, logs_are_in_order, observe, print_wins_of_a_store, race,
    soon,
};
use onceonly_sqlite::SqliteAuthority;

#[test]
fn of_two_stores_one_wins_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    race(|| SqliteAuthority::open(&file).unwrap(), "apart");
    let one = Arc::new(SqliteAuthority::open(&file).unwrap());
    race(|| Arc::clone(&one), "together");
}

#[test]
fn the_log_of_what_was_forgotten_has_no_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    logs_are_in_order(|| SqliteAuthority::open(&file).unwrap());
}

#[test]
fn of_several_processes_one_wins_each_key() {
    if let Some(file) = is_child() {
        return print_wins_of_a_store(SqliteAuthority::open(file).unwrap(), "orders");
    }
    // They also make the file and its tables at the same time.
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seen.db");
        let test = "of_several_processes_one_wins_each_key";
        let wins = Children::spawn(4, test, file.to_str().unwrap()).wins(KEYS);
        assert!(wins.iter().all(|wins| *wins == 1), "{wins:?}");
    }
}

#[test]
fn threads_that_open_a_new_file_at_once_all_get_it() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seen.db");
        thread::scope(|scope| {
            for number in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    let opened = SqliteAuthority::open(file).unwrap().open("orders", 7, soon());
                    assert_eq!(opened.unwrap().check, 7, "{number}");
                });
            }
        });
    }
}

/// What was cancelled knows the last fence, so the next is above it even if the clock steps back.
#[test]
fn fences_grow_when_the_clock_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    let authority = SqliteAuthority::open(&file).unwrap();
    authority.open("orders", 7, soon()).unwrap();
    let claim = |token| {
        let answers = authority.rows(&[claim("orders", 1, token)], soon()).unwrap().rows;
        match answers[..] {
            [Ok(RowAnswer::Granted { fence })] => fence,
            ref other => panic!("{other:?}"),
        }
    };
    claim(1);
    let ahead = 1_i64 << 60;
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute("UPDATE onceonly_rows SET fence = ?1", [ahead]).unwrap();
    let mut abandon = observe("orders", 1, 1);
    abandon.op = RowOp::Abandon { token: Token::from_bytes([1; 16]) };
    authority.rows(&[abandon], soon()).unwrap();
    assert_eq!(claim(2), ahead.unsigned_abs() + 1);
    let mut forget = observe("orders", 1, 1);
    forget.op = RowOp::Forget { keep: LONG };
    authority.rows(&[forget], soon()).unwrap();
    assert_eq!(claim(3), ahead.unsigned_abs() + 2);
}

#[test]
fn rows_that_are_over_do_not_stay_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    let authority = SqliteAuthority::open(&file).unwrap();
    authority.open("orders", 7, soon()).unwrap();
    for digest in 0..100 {
        let marked = authority.rows(&[observe("orders", digest, 1)], soon()).unwrap();
        assert!(matches!(marked.rows[..], [Ok(RowAnswer::Marked)]));
    }
    let db = rusqlite::Connection::open(&file).unwrap();
    let count = || {
        let rows = db.query_row("SELECT count(*) FROM onceonly_rows", [], |row| row.get(0));
        rows.unwrap_or(0_i64)
    };
    assert_eq!(count(), 100);
    let over = "UPDATE onceonly_rows SET live_until = 1, expires = 1 WHERE digest <> zeroblob(16)";
    db.execute(over, []).unwrap();
    // A row that is asked for is not live, whether it is there or not.
    let mut look = observe("orders", 5, 1);
    look.op = RowOp::Look;
    let answers = authority.rows(&[look], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Absent)]));
    for digest in 100..150 {
        authority.rows(&[observe("orders", digest, 1)], soon()).unwrap();
    }
    assert_eq!(count(), 51);
    let rows: Vec<Row<'_>> = (0..100).map(|digest| observe("orders", digest, 2)).collect();
    let answers = authority.rows(&rows, soon()).unwrap().rows;
    let marked = answers.iter().filter(|answer| matches!(answer, Ok(RowAnswer::Marked))).count();
    assert_eq!(marked, 99);
}
