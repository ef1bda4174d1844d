//! A line that fails, a server that ends connections, tables that others made, changed or restored.

mod server;

use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use mysql_async::Opts;
use onceonly::Timestamp;
use onceonly::authority::{
    Acquire, Append, Authority, AuthorityError, Bucket, Chunk, Progress, RowAnswer, Token,
};
use onceonly_mysql::{MysqlAuthority, migrations};
use onceonly_sql_tests::{LONG, Proxy, lines_fail, observe, soon};
use server::{Database, execute, number, url};

fn cause(error: &AuthorityError) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!("{error}; ");
        source = error.source();
    }
    text
}

fn address() -> SocketAddr {
    let opts = Opts::from_url(url()).unwrap();
    (opts.ip_or_hostname(), opts.tcp_port()).to_socket_addrs().unwrap().next().unwrap()
}

/// The address of the server with another port.
fn through(proxy: &Proxy, database: &Database) -> String {
    let opts = Opts::from_url(url()).unwrap();
    let user = opts.user().unwrap_or("root");
    let password = opts.pass().map(|password| format!(":{password}")).unwrap_or_default();
    format!("mysql://{user}{password}@127.0.0.1:{}/{}", proxy.port(), database.name)
}

#[test]
fn a_line_that_fails_is_an_error_in_time() {
    let database = Database::new();
    let proxy = Proxy::to(address());
    let over = through(&proxy, &database);
    lines_fail(&database.connect(), &proxy, || {
        Box::new(MysqlAuthority::builder(&over).build().unwrap())
    });
}

/// A transaction that holds a row for longer than the deadline.
#[test]
fn a_row_that_is_locked_is_an_error_in_time() {
    let database = Database::new();
    let authority = database.connect();
    authority.open("orders", 7, soon()).unwrap();
    authority.rows(&[observe("orders", 1, 1)], soon()).unwrap();
    let at = database.url();
    execute(&at, "UPDATE onceonly_rows SET live_until = 1, expires = 1").unwrap();
    let holder = thread::spawn(move || {
        execute(&at, "BEGIN; SELECT * FROM onceonly_rows FOR UPDATE; DO SLEEP(6)").unwrap();
    });
    thread::sleep(Duration::from_millis(500));
    let before = Instant::now();
    let failed = authority.rows(&[observe("orders", 1, 2)], before + Duration::from_millis(1_500));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    // The server gave up by itself, so nothing was applied.
    assert!(matches!(failed, Err(AuthorityError::Transient(_))), "{failed:?}");
    let answers = authority.rows(&[observe("orders", 1, 3)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    holder.join().unwrap();
}

#[test]
fn connections_that_the_server_ended_are_not_used() {
    let database = Database::new();
    let authority = database.connect();
    authority.open("orders", 7, soon()).unwrap();
    for digest in 0..5 {
        // One connection after the other, until none is left.
        while let Some(id) = connection(&database) {
            // It may have gone by itself.
            let _ = execute(url(), &format!("KILL {id}"));
        }
        thread::sleep(Duration::from_millis(200));
        let answers = authority.rows(&[observe("orders", digest, digest)], soon()).unwrap();
        assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    }
}

fn connection(database: &Database) -> Option<i64> {
    let query = format!(
        "SELECT COALESCE(MIN(id), 0) FROM information_schema.processlist WHERE db = '{}'",
        database.name
    );
    Some(number(url(), &query)).filter(|id| *id > 0)
}

#[test]
fn tables_that_were_restored_are_noticed() {
    let database = Database::new();
    let at = database.url();
    let authority = database.connect();
    let first = authority.open("orders", 7, soon()).unwrap();
    execute(&at, "UPDATE onceonly_meta SET generation = generation + 1").unwrap();
    let answers = authority.rows(&[observe("orders", 1, 1)], soon()).unwrap();
    assert_ne!(answers.server.incarnation, first.server.incarnation);
    let second = authority.open("orders", 7, soon()).unwrap();
    assert!(second.complete_since > first.complete_since);
    // A table that was made anew, from a dump for instance, has another time; in whole seconds.
    thread::sleep(Duration::from_millis(1_100));
    execute(
        &at,
        "CREATE TABLE copy LIKE onceonly_rows; INSERT INTO copy SELECT * FROM onceonly_rows;
         DROP TABLE onceonly_rows; RENAME TABLE copy TO onceonly_rows",
    )
    .unwrap();
    let third = database.connect().open("orders", 7, soon()).unwrap();
    assert_ne!(third.server.incarnation, second.server.incarnation);
    assert!(third.complete_since > second.complete_since);
    let fourth = database.connect().open("orders", 7, soon()).unwrap();
    assert_eq!(fourth.complete_since, third.complete_since);
    // The space itself may be gone as well: rows of it are kept none the less.
    execute(&at, "DELETE FROM onceonly_spaces").unwrap();
    let authority = database.connect();
    let answers = authority.rows(&[observe("orders", 2, 2)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    assert_eq!(authority.open("orders", 7, soon()).unwrap().check, 7);
    let answers = authority.rows(&[observe("orders", 2, 3)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Duplicate { .. })]), "{answers:?}");
}

#[test]
fn tables_of_another_release_are_refused() {
    let database = Database::new();
    database.connect().open("orders", 7, soon()).unwrap();
    execute(&database.url(), "UPDATE onceonly_meta SET version = 99").unwrap();
    let refused = database.connect().open("orders", 7, soon()).unwrap_err();
    assert!(matches!(refused, AuthorityError::Refused(_)), "{refused:?}");
    assert!(cause(&refused).contains("version 99"), "{}", cause(&refused));
}

#[test]
fn tables_can_be_made_by_others() {
    let database = Database::new();
    let builder = || MysqlAuthority::builder(&database.url()).migrates(false).build().unwrap();
    let refused = builder().open("orders", 7, soon()).unwrap_err();
    assert!(cause(&refused).contains("migrations"), "{}", cause(&refused));
    execute(&database.url(), migrations()).unwrap();
    assert_eq!(builder().open("orders", 7, soon()).unwrap().check, 7);
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    let refused = |url: &str| {
        let error = MysqlAuthority::builder(url).build().unwrap_err();
        assert!(matches!(error, AuthorityError::Refused(_)), "{error:?}");
        cause(&error)
    };
    refused("postgres://here");
    assert!(refused("mysql://here").contains("database"));
    let authority = MysqlAuthority::builder("mysql://me:secret@db:3307/x").build().unwrap();
    assert_eq!(authority.name(), "MySQL at db:3307, database x");
    assert!(!format!("{authority:?}").contains("secret"), "{authority:?}");
    let at = format!("mysql://nobody:wrong@{}/test", address());
    let authority = MysqlAuthority::builder(&at).build().unwrap();
    let error = authority.open("orders", 7, soon()).unwrap_err();
    assert!(matches!(error, AuthorityError::Refused(_)), "{error:?}");
}

/// Acquires the space and appends chunks that are over after `keep`.
fn append(
    authority: &MysqlAuthority,
    slice: u64,
    number: u64,
    keep: Duration,
) -> onceonly::authority::Result<()> {
    let time = Timestamp::from_unix_millis(1_700_000_000_000);
    let progress =
        |position| Progress { position, complete_since: time, complete_through: time, layout: 1 };
    let holder = Token::from_bytes([1; 16]);
    let request = Acquire { holder, previous: None, lease: LONG, initial: progress(0) };
    let acquired = authority.acquire("orders", &request, soon())?;
    let expires = acquired.server.time.as_unix_nanos() + keep.as_nanos() as i64;
    let expires = Timestamp::from_unix_nanos(expires);
    let bucket = Bucket { slice, part: 0 };
    let chunks = [Chunk { bucket, number, expires, data: vec![1, 2, 3] }];
    let append = Append {
        space: "orders",
        epoch: acquired.epoch,
        holder,
        lease: LONG,
        progress: progress(number),
        chunks: &chunks,
    };
    let mut answers = authority.append(&[append], soon())?;
    answers.remove(0).map(drop)
}

#[test]
fn tables_of_chunks_come_and_go() {
    let database = Database::new();
    let authority = database.connect();
    authority.open("orders", 7, soon()).unwrap();
    let (hour, first) = (3_600_000, 472_222 * 3_600_000);
    append(&authority, first, 1, Duration::from_millis(500)).unwrap();
    append(&authority, first + hour, 2, LONG).unwrap();
    let tables = || {
        let count = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE
                     'onceonly\\_chunks\\_%' AND table_schema = ";
        number(url(), &format!("{count}'{}'", database.name))
    };
    assert_eq!(tables(), 2);
    let began = Instant::now();
    while tables() != 1 {
        assert!(began.elapsed() < LONG, "a table in which all is over is not dropped");
        thread::sleep(Duration::from_millis(200));
    }
    // It comes again when it is needed.
    append(&authority, first, 3, LONG).unwrap();
    assert_eq!(tables(), 2);
    assert_eq!(authority.slices("orders", soon()).unwrap().len(), 2);
    let bucket = Bucket { slice: first, part: 0 };
    assert_eq!(authority.read("orders", &[bucket], soon()).unwrap()[0].len(), 1);
}

#[test]
fn rows_that_are_over_are_deleted() {
    let database = Database::new();
    let authority = database.connect();
    authority.open("orders", 7, soon()).unwrap();
    for digest in 0..20 {
        authority.rows(&[observe("orders", digest, 1)], soon()).unwrap();
    }
    let at = database.url();
    let over = "UPDATE onceonly_rows SET live_until = 1, expires = 1 WHERE digest < x'0a'";
    execute(&at, over).unwrap();
    let count = || number(&at, "SELECT COUNT(*) FROM onceonly_rows");
    let began = Instant::now();
    while count() != 10 {
        assert!(began.elapsed() < LONG, "{} rows are left", count());
        thread::sleep(Duration::from_millis(200));
    }
    let answers = authority.rows(&[observe("orders", 15, 2)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Duplicate { .. })]), "{answers:?}");
}

/// Values of a call that are more than a packet may have.
#[test]
fn large_values_go_in_several_packets() {
    let database = Database::new();
    let authority = database.connect();
    authority.open("orders", 7, soon()).unwrap();
    let value = vec![0xa5; 65_536];
    let rows: Vec<_> = (0..200)
        .map(|digest| {
            let mut row = observe("orders", digest, digest);
            if let onceonly::authority::RowOp::Observe { value: of_row, .. } = &mut row.op {
                *of_row = &value;
            }
            row
        })
        .collect();
    let answers = authority.rows(&rows, soon()).unwrap().rows;
    assert_eq!(answers.len(), rows.len());
    for answer in answers {
        assert!(matches!(answer, Ok(RowAnswer::Marked)), "{answer:?}");
    }
    let answers = authority.rows(&[observe("orders", 77, 99)], soon()).unwrap().rows;
    let whole =
        matches!(&answers[..], [Ok(RowAnswer::Duplicate { value: found, .. })] if *found == value);
    assert!(whole);
}
