//! What happens to a Cluster while it is asked.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onceonly::authority::{Authority, Digest, RowAnswer, RowOp};
use onceonly_redis::RedisAuthority;

use crate::asking::{SPACE, ask, digests, is_duplicate, observe, soon, text};
use crate::server::{Cluster, Server, eventually};

fn all_marked(cluster: &Cluster, authority: &RedisAuthority, keys: &[Digest]) {
    let answers = ask(authority, keys, observe, soon()).unwrap();
    assert!(answers.rows.iter().all(|answer| *answer.as_ref().unwrap() == RowAnswer::Marked));
    for node in &cluster.nodes {
        let _: i64 = redis::cmd("WAIT").arg(1).arg(5_000).query(&mut node.client()).unwrap_or(0);
    }
}

/// Calls go on while a master dies; no key gets two winners but those that the failover may have lost.
#[test]
fn a_master_that_is_killed_is_followed_by_its_replica() {
    let mut cluster = Cluster::start(1);
    let authority = cluster.authority();
    let before = authority.open(SPACE, 7, soon()).unwrap();
    let old = digests(600);
    all_marked(&cluster, &authority, &old);

    let victim = cluster.masters()[0];
    cluster.nodes[victim].kill();
    let begun = Instant::now();
    let answers = ask(&authority, &old, observe, begun + Duration::from_millis(500)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let (told, failed): (Vec<_>, Vec<_>) = answers.rows.into_iter().partition(Result::is_ok);
    assert!(told.len() > 300 && failed.len() > 100, "{} and {}", told.len(), failed.len());
    assert!(told.iter().all(|answer| is_duplicate(answer.as_ref().unwrap())));
    assert!(failed.iter().all(|answer| answer.as_ref().unwrap_err().is_transient()));

    eventually("the replica answers for it", || {
        let answers = ask(&authority, &old, observe, soon());
        answers.is_ok_and(|answers| {
            let told = answers.rows.into_iter();
            let done = told.map(|answer| answer.is_ok_and(|answer| is_duplicate(&answer)));
            let done: Vec<bool> = done.collect();
            if done.iter().all(|done| *done) {
                assert_ne!(answers.server.incarnation, before.server.incarnation);
            }
            done.iter().all(|done| *done)
        })
    });
    let after = authority.open(SPACE, 7, soon()).unwrap();
    assert!(after.complete_since > before.complete_since);
    let other = cluster.authority().open(SPACE, 7, soon()).unwrap();
    assert_eq!(other.server.incarnation, after.server.incarnation);
    assert_eq!(other.complete_since, after.complete_since);
}

/// One node that hangs costs its own rows the deadline, and those of the others nothing but that.
#[test]
fn a_node_that_hangs_keeps_the_others_from_nothing() {
    let cluster = Cluster::start(0);
    let authority = cluster.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let keys = digests(300);
    ask(&authority, &keys, observe, soon()).unwrap();
    cluster.nodes[1].freeze();
    for _ in 0..3 {
        let begun = Instant::now();
        let answers = ask(&authority, &keys, observe, begun + Duration::from_millis(300)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        let told = answers.rows.iter().filter(|answer| answer.is_ok()).count();
        assert!(told > 100 && told < 300, "{told}");
        for error in answers.rows.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(error.is_transient(), "{}", text(error));
        }
    }
    cluster.nodes[1].thaw();
    eventually("it answers again", || {
        let answers = ask(&authority, &keys, || RowOp::Look, soon());
        answers.is_ok_and(|answers| {
            answers.rows.into_iter().all(|answer| answer.is_ok_and(|answer| is_duplicate(&answer)))
        })
    });
}

fn redis_cli(args: &[&str]) {
    let done = Command::new("redis-cli").arg("--cluster").args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stdout));
}

fn id(node: &Server) -> String {
    redis::cmd("CLUSTER").arg("MYID").query(&mut node.client()).unwrap()
}

/// Ends the threads however the test ends.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks for old and for new keys until it is done. Returns how many calls it made, and how many rows got
/// an error.
fn ask_until(done: &AtomicBool, authority: &RedisAuthority, old: &[Digest]) -> (usize, usize) {
    let (mut asked, mut failed) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let fresh = digests(20);
        for (keys, marked) in [(&old[asked % 1_900..][..100], false), (&fresh[..], true)] {
            for answer in ask(authority, keys, observe, soon()).unwrap().rows {
                match answer {
                    Ok(RowAnswer::Marked) => assert!(marked, "an old key is new"),
                    Ok(RowAnswer::Duplicate { .. }) => assert!(!marked, "a new key is old"),
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => {
                        assert!(error.is_transient(), "{}", text(&error));
                        failed += 1;
                    }
                }
            }
        }
        asked += 1;
    }
    (asked, failed)
}

/// Slots move to a new node while threads ask: no answer is wrong, and nothing was lost.
#[test]
fn slots_that_are_moved_lose_nothing() {
    let mut cluster = Cluster::start(0);
    let authority = cluster.authority();
    let before = authority.open(SPACE, 7, soon()).unwrap();
    let old = digests(2_000);
    all_marked(&cluster, &authority, &old);
    cluster.nodes.push(Server::start(&["--cluster-enabled", "yes"]));
    let address = |at: usize| format!("127.0.0.1:{}", cluster.nodes[at].port);
    redis_cli(&["add-node", &address(3), &address(0)]);

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask_on = || ask_until(&done, &authority, &old);
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(ask_on)).collect();
        let over = SetWhenDropped(&done);
        eventually("all know the new node", || {
            cluster.nodes.iter().all(|node| {
                let mut command = redis::cmd("CLUSTER");
                let info: String = command.arg("INFO").query(&mut node.client()).unwrap();
                info.contains("cluster_known_nodes:4") && info.contains("cluster_state:ok")
            })
        });
        for _ in 0..3 {
            let to = id(&cluster.nodes[3]);
            let from = id(&cluster.nodes[0]);
            redis_cli(&[
                "reshard",
                &address(0),
                "--cluster-from",
                &from,
                "--cluster-to",
                &to,
                "--cluster-slots",
                "600",
                "--cluster-yes",
            ]);
        }
        drop(over);
        for thread in threads {
            let (asked, late) = thread.join().unwrap();
            assert!(asked > 50, "{asked}");
            assert!(late * 20 < asked * 120, "{late} answers failed in {asked} calls");
        }
    });
    let after = authority.open(SPACE, 7, soon()).unwrap();
    assert_eq!(after.complete_since, before.complete_since, "more room is no loss");
    let answers = ask(&authority, &old, || RowOp::Look, soon()).unwrap();
    assert!(answers.rows.iter().all(|answer| is_duplicate(answer.as_ref().unwrap())));
    let keys: i64 = redis::cmd("DBSIZE").query(&mut cluster.nodes[3].client()).unwrap();
    assert!(keys > 50, "the new node has {keys} keys");
}

#[test]
fn slots_are_computed_as_the_server_does() {
    let cluster = Cluster::start(0);
    let authority = cluster.builder().key_prefix("a{b").build().unwrap();
    for space in ["orders", "}", "{x}", "%", "a b"] {
        authority.open(space, 7, soon()).unwrap();
        let row = onceonly::authority::Row { space, digest: digests(1)[0], op: observe() };
        let answers = authority.rows(&[row], soon()).unwrap();
        assert_eq!(answers.rows.into_iter().next().unwrap().unwrap(), RowAnswer::Marked);
    }
}
