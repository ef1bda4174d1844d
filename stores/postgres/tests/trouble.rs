//! A line that fails, a server that ends connections, tables that others made, changed or restored.

mod server;

use std::net::ToSocketAddrs;
use std::thread;
use std::time::{Duration, Instant};

use onceonly::Timestamp;
use onceonly::authority::{
    Acquire, Append, Authority, AuthorityError, Bucket, Chunk, Progress, RowAnswer, Token,
};
use onceonly_postgres::{PostgresAuthority, migrations};
use onceonly_sql_tests::{LONG, Proxy, lines_fail, observe, soon};
use server::{Schema, execute, number, url};

fn cause(error: &AuthorityError) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!("{error}; ");
        source = error.source();
    }
    text
}

/// The address of the server with another port.
fn through(proxy: &Proxy) -> String {
    let config: tokio_postgres::Config = url().parse().unwrap();
    let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
    let password = config.get_password().map(|p| String::from_utf8_lossy(p).into_owned());
    let password = password.map(|p| format!("password='{p}'")).unwrap_or_default();
    format!("host=127.0.0.1 port={} user={user} dbname={database} {password}", proxy.port())
}

fn address() -> std::net::SocketAddr {
    let config: tokio_postgres::Config = url().parse().unwrap();
    let host = match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(_) => "127.0.0.1".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    (host, port).to_socket_addrs().unwrap().next().unwrap()
}

#[test]
fn a_line_that_fails_is_an_error_in_time() {
    let schema = Schema::new();
    let proxy = Proxy::to(address());
    let over = through(&proxy);
    lines_fail(&schema.connect(), &proxy, || {
        Box::new(PostgresAuthority::builder(&over).schema(&schema.name).build().unwrap())
    });
}

/// A transaction that holds a row for longer than the deadline.
#[test]
fn a_row_that_is_locked_is_an_error_in_time() {
    let schema = Schema::new();
    let authority = schema.connect();
    authority.open("orders", 7, soon()).unwrap();
    authority.rows(&[observe("orders", 1, 1)], soon()).unwrap();
    let name = schema.name.clone();
    let over = format!("UPDATE \"{name}\".rows SET live_until = 1, expires = 1");
    execute(url(), &over).unwrap();
    let holder = thread::spawn(move || {
        let hold = format!("BEGIN; SELECT * FROM \"{name}\".rows FOR UPDATE; SELECT pg_sleep(6)");
        execute(url(), &hold).unwrap();
    });
    thread::sleep(Duration::from_millis(300));
    let before = Instant::now();
    let failed = authority.rows(&[observe("orders", 1, 2)], before + Duration::from_millis(500));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    // The server gave up by itself, so nothing was applied.
    assert!(matches!(failed, Err(AuthorityError::Transient(_))), "{failed:?}");
    let answers = authority.rows(&[observe("orders", 1, 3)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    holder.join().unwrap();
}

#[test]
fn connections_that_the_server_ended_are_not_used() {
    let schema = Schema::new();
    let authority =
        PostgresAuthority::builder(&format!("{}?application_name={}", url(), schema.name));
    let authority = authority.schema(&schema.name).build().unwrap();
    authority.open("orders", 7, soon()).unwrap();
    for digest in 0..5 {
        let end = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE application_name = '{}'",
            schema.name
        );
        execute(url(), &end).unwrap();
        thread::sleep(Duration::from_millis(50));
        let answers = authority.rows(&[observe("orders", digest, digest)], soon()).unwrap();
        assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    }
}

#[test]
fn tables_that_were_restored_are_noticed() {
    let schema = Schema::new();
    let authority = schema.connect();
    let first = authority.open("orders", 7, soon()).unwrap();
    let name = &schema.name;
    execute(url(), &format!("UPDATE \"{name}\".meta SET generation = generation + 1")).unwrap();
    let answers = authority.rows(&[observe("orders", 1, 1)], soon()).unwrap();
    assert_ne!(answers.server.incarnation, first.server.incarnation);
    let second = authority.open("orders", 7, soon()).unwrap();
    assert!(second.complete_since > first.complete_since);
    // A table that was made anew, from a dump for instance, has another number.
    execute(
        url(),
        &format!(
            "SET search_path = \"{name}\"; CREATE TABLE copy (LIKE rows INCLUDING ALL);
             INSERT INTO copy SELECT * FROM rows; DROP TABLE rows; ALTER TABLE copy RENAME TO rows"
        ),
    )
    .unwrap();
    let third = authority.open("orders", 7, soon()).unwrap();
    assert_ne!(third.server.incarnation, second.server.incarnation);
    assert!(third.complete_since > second.complete_since);
    let fourth = schema.connect().open("orders", 7, soon()).unwrap();
    assert_eq!(fourth.complete_since, third.complete_since);
    // The space itself may be gone as well: rows of it are kept none the less.
    execute(url(), &format!("DELETE FROM \"{name}\".spaces")).unwrap();
    let answers = authority.rows(&[observe("orders", 2, 2)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    assert_eq!(authority.open("orders", 7, soon()).unwrap().check, 7);
    let answers = authority.rows(&[observe("orders", 2, 3)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Duplicate { .. })]), "{answers:?}");
}

#[test]
fn tables_of_another_release_are_refused() {
    let schema = Schema::new();
    schema.connect().open("orders", 7, soon()).unwrap();
    execute(url(), &format!("UPDATE \"{}\".meta SET version = 99", schema.name)).unwrap();
    let refused = schema.connect().open("orders", 7, soon()).unwrap_err();
    assert!(matches!(refused, AuthorityError::Refused(_)), "{refused:?}");
    assert!(cause(&refused).contains("version 99"), "{}", cause(&refused));
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    let wrong = PostgresAuthority::builder("mysql://here").build().unwrap_err();
    assert!(matches!(wrong, AuthorityError::Refused(_)));
    let tls = PostgresAuthority::builder("postgres://a@b/c?sslmode=require").build().unwrap_err();
    assert!(cause(&tls).contains("tunnel"), "{}", cause(&tls));
    let authority = PostgresAuthority::builder("postgres://me:secret@db:5433/x").build().unwrap();
    assert_eq!(authority.name(), "PostgreSQL at db:5433, database x, schema onceonly");
    assert!(!format!("{authority:?}").contains("secret"), "{authority:?}");
}

/// A database administrator makes the tables, and the client may only read and write them.
#[test]
fn a_client_without_rights_to_make_tables_can_use_them() {
    let schema = Schema::new();
    let (name, role) = (&schema.name, format!("{}_user", schema.name));
    execute(
        url(),
        &format!(
            "{} CREATE ROLE \"{role}\" LOGIN PASSWORD 'secret';
             GRANT USAGE ON SCHEMA \"{name}\" TO \"{role}\";
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"{name}\" TO \"{role}\"",
            migrations(name)
        ),
    )
    .unwrap();
    let as_role = format!("host=127.0.0.1 port={} dbname=test user={role}", address().port());
    let as_role = format!("{as_role} password=secret");
    let builder = PostgresAuthority::builder(&as_role).schema(name).migrates(false);
    let authority = builder.build().unwrap();
    authority.open("orders", 7, soon()).unwrap();
    let answers = authority.rows(&[observe("orders", 1, 1)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    append(&authority, 1_700_000_000_000, 1, LONG).unwrap();
    assert_eq!(number(url(), &format!("SELECT count(*) FROM \"{name}\".chunks_other")), 1);
    drop(authority);
    execute(url(), &format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).unwrap();
}

/// Acquires the space and appends one chunk that is over after `keep`.
fn append(
    authority: &PostgresAuthority,
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
fn partitions_come_and_go() {
    let schema = Schema::new();
    let authority = schema.connect();
    authority.open("orders", 7, soon()).unwrap();
    let (hour, first) = (3_600_000, 472_222 * 3_600_000);
    append(&authority, first, 1, Duration::from_millis(500)).unwrap();
    append(&authority, first + hour, 2, LONG).unwrap();
    let partitions = || {
        let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = ";
        number(url(), &format!("{count}'\"{}\".chunks'::regclass", schema.name))
    };
    assert_eq!(partitions(), 3);
    let began = Instant::now();
    while partitions() != 2 {
        assert!(began.elapsed() < LONG, "a partition in which all is over is not dropped");
        thread::sleep(Duration::from_millis(200));
    }
    // It comes again when it is needed.
    append(&authority, first, 3, LONG).unwrap();
    assert_eq!(partitions(), 3);
    assert_eq!(authority.slices("orders", soon()).unwrap().len(), 2);
    let bucket = Bucket { slice: first, part: 0 };
    assert_eq!(authority.read("orders", &[bucket], soon()).unwrap()[0].len(), 1);
}

#[test]
fn rows_that_are_over_are_deleted() {
    let schema = Schema::new();
    let authority = schema.connect();
    authority.open("orders", 7, soon()).unwrap();
    for digest in 0..20 {
        authority.rows(&[observe("orders", digest, 1)], soon()).unwrap();
    }
    let name = &schema.name;
    let over = format!(
        "UPDATE \"{name}\".rows SET live_until = 1, expires = 1
                        WHERE digest < '\\x0a'"
    );
    execute(url(), &over).unwrap();
    let count = || number(url(), &format!("SELECT count(*) FROM \"{name}\".rows"));
    let began = Instant::now();
    while count() != 10 {
        assert!(began.elapsed() < LONG, "{} rows are left", count());
        thread::sleep(Duration::from_millis(200));
    }
    let answers = authority.rows(&[observe("orders", 15, 2)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Duplicate { .. })]), "{answers:?}");
}
