//! A server that may have lost something is noticed.

use onceonly::authority::{Authority, AuthorityError, RowAnswer, RowOp};

use crate::asking::{SPACE, digest, digests, incarnation, is_duplicate, observe, row, soon, text};
use crate::server::{Server, eventually};

#[test]
fn a_restart_is_noticed_by_the_first_answer() {
    let mut server = Server::start(&[]);
    let authority = server.authority();
    let before = authority.open(SPACE, 7, soon()).unwrap();
    let key = digest();
    assert_eq!(row(&authority, key, observe()), RowAnswer::Marked);
    assert_eq!(incarnation(&authority), before.server.incarnation);
    server.kill();
    let rows = [onceonly::authority::Row { space: SPACE, digest: key, op: observe() }];
    let failed = authority.rows(&rows, soon()).unwrap_err();
    assert!(failed.is_transient(), "{}", text(&failed));
    let refused = authority.rows(&rows, soon()).unwrap_err();
    assert!(matches!(refused, AuthorityError::Transient(_)), "{}", text(&refused));
    server.start_again();
    assert_ne!(incarnation(&authority), before.server.incarnation);
    assert_eq!(row(&authority, key, observe()), RowAnswer::Marked, "it is empty");
    let after = authority.open(SPACE, 8, soon()).unwrap();
    assert_eq!(after.check, 8, "the space is new");
    assert!(after.complete_since > before.complete_since);
}

/// What is on disk may be older than what was acknowledged.
#[test]
fn a_restart_that_nobody_saw_moves_what_is_complete() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let key = digest();
    let before = {
        let authority = server.authority();
        let before = authority.open(SPACE, 7, soon()).unwrap();
        assert_eq!(row(&authority, key, observe()), RowAnswer::Marked);
        before
    };
    server.kill();
    server.start_again();
    let authority = server.authority();
    let after = authority.open(SPACE, 8, soon()).unwrap();
    assert_eq!(after.check, 7);
    assert!(after.complete_since > before.complete_since);
    assert_ne!(after.server.incarnation, before.server.incarnation);
    assert!(is_duplicate(&row(&authority, key, RowOp::Look)));
    // Once: the next one has seen nothing happen since.
    assert_eq!(
        server.authority().open(SPACE, 7, soon()).unwrap().complete_since,
        after.complete_since
    );
}

#[test]
fn a_replica_that_takes_over_is_found_and_noticed() {
    let mut master = Server::start(&[]);
    let authority = master.authority();
    let alone = authority.open(SPACE, 7, soon()).unwrap();
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    let authority = replica.builder().or_at(master.url()).build().unwrap();
    let before = authority.open(SPACE, 7, soon()).unwrap();
    assert_eq!(before.server.incarnation, alone.server.incarnation, "a replica loses nothing");
    assert_eq!(before.complete_since, alone.complete_since);
    let key = digest();
    assert_eq!(row(&authority, key, observe()), RowAnswer::Marked);
    let written: i64 = redis::cmd("WAIT").arg(1).arg(20_000).query(&mut master.client()).unwrap();
    assert_eq!(written, 1);
    master.kill();
    let () = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query(&mut replica.client()).unwrap();
    eventually("the replica answers", || {
        crate::asking::ask(&authority, &[key], || RowOp::Look, soon()).is_ok()
    });
    assert_ne!(incarnation(&authority), before.server.incarnation);
    assert!(is_duplicate(&row(&authority, key, observe())));
    let after = authority.open(SPACE, 7, soon()).unwrap();
    assert!(after.complete_since > before.complete_since);
}

/// A master that became a replica does not take writes, nor does it vouch for anything.
#[test]
fn a_master_that_steps_down_is_left() {
    let (first, second) = (Server::start(&[]), Server::start(&[]));
    let authority = first.builder().or_at(second.url()).build().unwrap();
    let before = authority.open(SPACE, 7, soon()).unwrap();
    let port = second.port.to_string();
    let become_replica = |server: &Server| -> redis::RedisResult<()> {
        redis::cmd("REPLICAOF").arg("127.0.0.1").arg(&port).query(&mut server.client())
    };
    become_replica(&first).unwrap();
    let mut failures = 0;
    eventually("the other one is asked", || {
        let asked = crate::asking::ask(&authority, &digests(3), observe, soon());
        match asked {
            Ok(answers) => answers.server.incarnation != before.server.incarnation,
            Err(error) => {
                assert!(matches!(error, AuthorityError::Transient(_)), "{}", text(&error));
                failures += 1;
                false
            }
        }
    });
    assert!(failures <= 2, "{failures}");
}

#[test]
fn scripts_that_a_server_forgot_are_given_again() {
    let server = Server::start(&[]);
    let authority = server.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let keys = digests(1_000);
    for _ in 0..2 {
        let () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut server.client()).unwrap();
        let answers = crate::asking::ask(&authority, &keys, observe, soon()).unwrap();
        assert!(answers.rows.iter().all(Result::is_ok));
    }
    let loaded: Vec<redis::Value> =
        redis::cmd("KEYS").arg("*").query(&mut server.client()).unwrap();
    assert_eq!(loaded.len(), 1_001);
}
