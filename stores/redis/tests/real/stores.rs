//! Whole stores with one server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onceonly::{Builder, Claim, Dedup, Error, Ownership, Verdict};
use onceonly_redis::RedisAuthority;

use crate::server::{Cluster, Server, eventually};

fn builder(authority: RedisAuthority) -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(600))
        .expected_keys(10_000)
        .secret([7; 32])
        .authority(authority, Ownership::Shared)
        .authority_space("orders")
        .authority_deadline(Duration::from_secs(5))
}

fn one_winner_a_key(connect: impl Fn() -> RedisAuthority) {
    const KEYS: usize = 1_000;
    let stores: Vec<Dedup> = (0..2).map(|_| builder(connect()).in_memory().unwrap()).collect();
    let wins: Vec<AtomicU32> = (0..KEYS).map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (store, wins) = (&stores[number % 2], &wins);
            scope.spawn(move || {
                let mut order: Vec<usize> = (0..KEYS).collect();
                if number >= 2 {
                    order.reverse();
                }
                for some in order.chunks(if number % 2 == 0 { 50 } else { 7 }) {
                    let keys: Vec<String> = some.iter().map(usize::to_string).collect();
                    let verdicts = store.observe_batch(&keys).unwrap();
                    for (key, verdict) in some.iter().zip(verdicts) {
                        wins[*key].fetch_add(u32::from(verdict == Verdict::New), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(wins.iter().all(|wins| wins.load(Ordering::Relaxed) == 1));
    for store in &stores {
        assert_eq!(store.observe("7").unwrap(), Verdict::Duplicate);
        assert_eq!(store.stats().authority.unwrap().failed_calls, 0);
    }
}

#[test]
fn two_stores_have_one_winner_a_key() {
    let server = Server::start(&[]);
    one_winner_a_key(|| server.authority());
}

#[test]
fn two_stores_on_a_cluster_have_one_winner_a_key() {
    let cluster = Cluster::start(0);
    one_winner_a_key(|| cluster.authority());
}

#[test]
fn claims_and_forgetting_reach_the_other_store() {
    let server = Server::start(&[]);
    let store = || {
        let builder = builder(server.authority()).forget_lag(Duration::from_millis(50));
        builder.in_memory().unwrap()
    };
    let (a, b) = (store(), store());
    let Claim::Granted(guard) = a.claim("order-1").unwrap() else { panic!("not granted") };
    assert!(matches!(b.claim("order-1").unwrap(), Claim::InFlight { .. }));
    guard.commit().unwrap();
    assert!(matches!(b.claim("order-1").unwrap(), Claim::Duplicate { .. }));
    assert!(a.forget("order-1").unwrap());
    eventually("the other hears of it", || b.observe("order-1").unwrap() == Verdict::New);
    assert_eq!(a.observe("order-1").unwrap(), Verdict::Duplicate);
}

#[test]
fn a_restart_shows_in_what_is_guaranteed() {
    let mut server = Server::start(&[]);
    let store = builder(server.authority()).in_memory().unwrap();
    assert_eq!(store.observe("1").unwrap(), Verdict::New);
    let before = store.guaranteed_since();
    server.kill();
    let failed = store.observe("2").unwrap_err();
    assert!(matches!(failed, Error::Authority { .. } | Error::Undecided { .. }), "{failed}");
    server.start_again();
    eventually("it answers again", || store.observe("3").is_ok());
    assert!(store.guaranteed_since() > before);
}

/// Stores share connections and calls through one `Arc`.
#[test]
fn stores_may_share_an_authority() {
    let server = Server::start(&[]);
    let shared = Arc::new(server.authority());
    let open = |dir: &Path, space: &str| {
        let builder = builder(server.authority()).authority(Arc::clone(&shared), Ownership::Shared);
        builder.authority_space(space).open(dir.join(space)).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let (orders, bills) = (open(dir.path(), "orders"), open(dir.path(), "bills"));
    assert_eq!(orders.observe("1").unwrap(), Verdict::New);
    assert_eq!(bills.observe("1").unwrap(), Verdict::New);
    assert_eq!(orders.observe("1").unwrap(), Verdict::Duplicate);
}

#[test]
fn an_evicting_server_opens_no_store() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lfu"]);
    let refused = builder(server.authority()).in_memory().unwrap_err();
    assert!(!refused.is_transient());
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("maxmemory-policy is allkeys-lfu"), "{refused}: {cause}");
}

/// A consumer that goes on while a master of the Cluster is killed.
#[test]
fn a_store_follows_a_failover() {
    let mut cluster = Cluster::start(1);
    let builder = builder(cluster.authority()).authority_deadline(Duration::from_millis(500));
    let store = builder.in_memory().unwrap();
    let keys: Vec<String> = (0..300).map(|key| key.to_string()).collect();
    assert!(store.observe_batch(&keys).unwrap().iter().all(|verdict| *verdict == Verdict::New));
    let before = store.guaranteed_since();
    let victim = cluster.masters()[1];
    cluster.nodes[victim].kill();
    let mut turn = 0;
    eventually("all keys can be asked for again", || {
        turn += 1;
        let fresh: Vec<String> = (0..100).map(|key| format!("{turn}-{key}")).collect();
        // An error marks nothing, and what is known is no reason for `New`.
        let known = store.observe_batch(&keys);
        assert!(known.is_err() || known.is_ok_and(|all| !all.contains(&Verdict::New)));
        store.observe_batch(&fresh).is_ok()
    });
    assert!(turn > 1, "nothing failed");
    assert!(store.guaranteed_since() > before);
}
