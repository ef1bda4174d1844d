//! Coming from `SET … NX EX`: keys of before are duplicates until the window is complete.

use std::thread;
use std::time::Duration;

use onceonly::{Builder, Claim, Dedup, Error, Key, OnOutage, Ownership, Verdict};
use onceonly_redis::RedisAuthority;

use crate::server::{Cluster, Server, eventually};

fn builder(authority: RedisAuthority, ownership: Ownership) -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(600))
        .secret([7; 32])
        .authority(authority, ownership)
        .authority_space("orders")
        .authority_deadline(Duration::from_secs(5))
}

fn legacy(server: &Server) -> RedisAuthority {
    server.builder().legacy_prefix("dedup:").build().unwrap()
}

/// As the program of before does.
fn mark(server: &Server, key: &[u8]) {
    let name = [b"dedup:", key].concat();
    let mut set = redis::cmd("SET");
    set.arg(name).arg(1).arg("NX").arg("EX").arg(600);
    set.query::<()>(&mut server.client()).unwrap();
}

#[test]
fn keys_of_before_are_duplicates_for_every_call() {
    let server = Server::start(&[]);
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let store = builder(legacy(&server), ownership).in_memory().unwrap();
        let key = Key::from_fields(&[b"a", b"\xff\0"]);
        mark(&server, key.as_ref());
        for key in ["1", "2", "3"] {
            mark(&server, key.as_bytes());
        }
        assert_eq!(store.observe("1").unwrap(), Verdict::Duplicate);
        assert_eq!(store.observe(&key).unwrap(), Verdict::Duplicate);
        assert_eq!(
            store.scope("orders").observe("1").unwrap(),
            Verdict::Duplicate,
            "as it was given"
        );
        assert!(matches!(store.claim("2").unwrap(), Claim::Duplicate { .. }));
        assert!(store.contains("1").unwrap() && !store.contains("4").unwrap());
        let batch = store.observe_batch(&["4", "3", "4", "5", "1"]).unwrap();
        let (new, duplicate) = (Verdict::New, Verdict::Duplicate);
        assert_eq!(batch, [new, duplicate, duplicate, new, duplicate]);
        assert_eq!(store.contains_batch(&["2", "4", "6"]).unwrap(), [true, true, false]);
        let asked = store.stats().authority.unwrap().legacy_asked;
        assert_eq!(store.observe("4").unwrap(), Verdict::Duplicate);
        let stats = store.stats().authority.unwrap();
        assert_eq!(stats.legacy_asked, asked, "what is known here is not asked for");
        assert!(store.forget("1").unwrap());
        assert_eq!(store.observe("1").unwrap(), Verdict::New, "forgotten there too");
        store.close().unwrap();
        redis::cmd("FLUSHALL").query::<()>(&mut server.client()).unwrap();
    }
}

#[test]
fn it_ends_by_itself_when_the_window_is_complete() {
    let server = Server::start(&[]);
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        let window = Duration::from_millis(1_500);
        let store = builder(legacy(&server), ownership).window(window).in_memory().unwrap();
        mark(&server, b"early");
        assert_eq!(store.observe("early").unwrap(), Verdict::Duplicate);
        let asked = store.stats().authority.unwrap().legacy_asked;
        thread::sleep(window + Duration::from_millis(50));
        mark(&server, b"late");
        assert_eq!(store.observe("late").unwrap(), Verdict::New);
        assert_eq!(store.stats().authority.unwrap().legacy_asked, asked);
        store.close().unwrap();
        redis::cmd("FLUSHALL").query::<()>(&mut server.client()).unwrap();
    }
}

#[test]
fn a_server_that_does_not_say_is_an_error_and_marks_nothing() {
    let server = Server::start(&[]);
    let deadline = Duration::from_millis(300);
    let builder = builder(legacy(&server), Ownership::Exclusive).authority_deadline(deadline);
    let store = builder.in_memory().unwrap();
    mark(&server, b"1");
    server.freeze();
    assert!(matches!(store.observe("1"), Err(Error::Authority { .. })));
    assert!(store.observe_batch(&["1", "2"]).is_err());
    assert!(matches!(store.claim("1"), Err(Error::Authority { .. })));
    assert_eq!(store.on_outage(OnOutage::AssumeNew).observe("3").unwrap(), Verdict::New);
    server.thaw();
    eventually("it says", || store.contains("4").is_ok());
    assert_eq!(store.observe("1").unwrap(), Verdict::Duplicate);
    assert_eq!(store.observe("2").unwrap(), Verdict::New);
}

#[test]
fn keys_of_before_are_found_in_a_cluster() {
    let cluster = Cluster::start(0);
    let store = {
        let authority = cluster.builder().legacy_prefix("dedup:").build().unwrap();
        builder(authority, Ownership::Shared).in_memory().unwrap()
    };
    let odd = ["", "{", "}", "{}", "{}a", "a}b", "{a}b", "a{b}c{d}"];
    let keys = odd.iter().map(|key| (*key).to_owned()).chain((0..300).map(|n| format!("k{n}")));
    let keys: Vec<String> = keys.collect();
    let mut set = 0;
    for node in &cluster.nodes {
        let mut client = node.client();
        for key in &keys {
            // The other nodes refuse.
            let mut mark = redis::cmd("SET");
            set +=
                u32::from(mark.arg(format!("dedup:{key}")).arg(1).query::<()>(&mut client).is_ok());
        }
    }
    assert_eq!(set as usize, keys.len());
    let verdicts = store.observe_batch(&keys).unwrap();
    assert_eq!(verdicts, vec![Verdict::Duplicate; keys.len()]);
    assert_eq!(store.observe("another").unwrap(), Verdict::New);
}
