//! Servers that refuse, hang, lose replies; the deadline, the breaker, the policies.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::memory::{Fault as ServerFault, MemoryAuthority};
use onceonly::authority::{
    Acquire, Acquired, Answers, Append, Appended, Authority, AuthorityError, Bucket, Forgotten,
    Opened, Result as Told, Row, SliceInfo, StoredChunk, Token,
};
use onceonly::sim::{Fault, Mix, SimDisk};
use onceonly::{BreakerState, Dedup, Durability, Error, OnOutage, Ownership, SystemClock, Verdict};

use crate::common::fast_dir;
use crate::fixture::{SHORT, SLICE, Site, WINDOW, eventually, is_new};

/// Of what was not synced.
const NOTHING: Mix = Mix { seed: 1, unit: 4096, survive: 0 };

#[test]
fn a_lost_reply_is_asked_for_again() {
    for fault in [ServerFault::Refuse, ServerFault::LoseRequest, ServerFault::LoseReply] {
        let site = Site::new();
        let (a, b) = (site.quick_store(), site.store());
        site.server.fail_next(1, fault);
        assert!(is_new(&a, "1"), "{fault:?}");
        assert!(!is_new(&b, "1"));
        assert_eq!(a.stats().authority.unwrap().failed_calls, 1);
    }
}

#[test]
fn a_reply_that_stays_away_is_undecided_until_this_store_asks_again() {
    for fault in [ServerFault::LoseReply, ServerFault::LoseRequest] {
        let site = Site::new();
        let (a, b) = (site.quick_store(), site.store());
        site.server.fail_next(2, fault);
        let error = a.observe("1").unwrap_err();
        assert!(matches!(error, Error::Undecided { .. }) && error.is_transient(), "{error:?}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(matches!(a.contains("1"), Err(Error::Undecided { .. })));
        if fault == ServerFault::LoseReply {
            assert!(!is_new(&b, "1"), "it is marked, for a");
        }
        assert!(is_new(&a, "1"), "the answer that was lost");
        assert!(!is_new(&a, "1") && !is_new(&b, "1"), "once");
        let stats = a.stats();
        assert_eq!((stats.new, stats.authority.unwrap().undecided_calls), (1, 2));
    }
}

/// The second caller waits for the first instead of being told of a mark that nobody was told of.
#[test]
fn of_many_who_ask_again_one_gets_the_answer() {
    let site = Site::new();
    let a = site.quick_store();
    site.server.fail_next(2, ServerFault::LoseReply);
    assert!(a.observe("1").is_err());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let a = a.clone();
            thread::spawn(move || a.observe("1").unwrap())
        })
        .collect();
    let verdicts = threads.into_iter().map(|thread| thread.join().unwrap());
    assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::New).count(), 1);
}

/// The token survives the process.
#[test]
fn a_killed_store_still_gets_the_answer_that_was_lost() {
    for durability in [Durability::Process, Durability::Sync] {
        let site = Site::new();
        let builder = || site.builder().authority_deadline(SHORT).durability(durability);
        let disk = SimDisk::new();
        let killed = builder().open_simulated(&disk).unwrap();
        assert!(is_new(&killed, "known"));
        site.server.fail_next(2, ServerFault::LoseReply);
        assert!(matches!(killed.observe("1"), Err(Error::Undecided { .. })));
        site.server.fail_next(2, ServerFault::LoseReply);
        assert!(matches!(killed.observe("2"), Err(Error::Undecided { .. })));
        assert!(is_new(&killed, "2"));
        let left = disk.snapshot().after_kill();
        let again = builder().open_simulated(&left).unwrap();
        let other = site.store();
        assert!(!is_new(&other, "1"), "it is marked, for the one that was killed");
        assert!(is_new(&again, "1"));
        assert!(!is_new(&again, "1") && !is_new(&again, "2") && !is_new(&again, "known"));
    }
}

/// That a question has its answer survives what the answer has to survive, or is not told.
#[test]
fn an_answer_that_was_lost_is_told_once() {
    let site = Site::new();
    let builder = || site.builder().authority_deadline(SHORT).durability(Durability::Sync);
    let disk = SimDisk::new();
    let store = builder().open_simulated(&disk).unwrap();
    for key in ["1", "2"] {
        site.server.fail_next(2, ServerFault::LoseReply);
        assert!(matches!(store.observe(key), Err(Error::Undecided { .. })));
    }
    assert!(is_new(&store, "1"));
    let left = disk.snapshot().after_power_loss(NOTHING);
    let again = builder().open_simulated(&left).unwrap();
    assert!(!is_new(&again, "1"), "it was told");
    drop(again);
    // Nor is it told while the disk does not take it.
    let kind = std::io::ErrorKind::StorageFull;
    disk.set_fault(Some(Fault { at: disk.calls() + 1, kind, for_ever: true }));
    assert!(store.observe("2").is_err());
    let killed = disk.snapshot().after_kill();
    disk.set_fault(None);
    drop(store);
    let again = builder().open_simulated(&killed).unwrap();
    assert!(is_new(&again, "2"));
    assert!(!is_new(&again, "2"));
}

/// What is acknowledged late lives for a window from then.
#[test]
fn an_answer_that_comes_late_counts_from_then() {
    let site = Site::new();
    let (a, b) = (site.quick_store(), site.store());
    site.server.fail_next(2, ServerFault::LoseReply);
    assert!(a.observe("1").is_err());
    site.clock.advance(Duration::from_secs(500));
    assert!(is_new(&a, "1"));
    site.clock.advance(WINDOW);
    assert!(!is_new(&b, "1") && !is_new(&a, "1"));
    site.clock.advance(SLICE);
    assert!(is_new(&b, "1"));
    // One that nobody asks for again is over there and here.
    site.server.fail_next(2, ServerFault::LoseReply);
    assert!(a.observe("2").is_err());
    site.clock.advance(WINDOW + SLICE);
    assert!(is_new(&b, "2"));
    assert!(!is_new(&a, "2"));
}

#[test]
fn in_an_outage_nothing_is_assumed_and_nothing_marked() {
    let site = Site::new();
    let (a, b) = (site.quick_store(), site.quick_store());
    assert!(is_new(&a, "known"));
    site.server.outage(Some(ServerFault::Refuse));
    for _ in 0..3 {
        assert!(matches!(a.observe("1"), Err(Error::Authority { transient: true, .. })));
    }
    // What is known here is answered all the same.
    assert!(!is_new(&a, "known"));
    site.server.outage(None);
    eventually("it recovers", || b.observe("1").is_ok());
    eventually("a hears of it", || a.observe("1").is_ok_and(|v| v == Verdict::Duplicate));
    assert_eq!(a.stats().authority.unwrap().assumed_new, 0);
}

#[test]
fn calls_end_at_their_deadline() {
    let site = Site::new();
    let store = site.quick_store();
    site.server.delay(Duration::from_secs(60));
    let before = Instant::now();
    assert!(store.observe("1").is_err());
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let store = store.clone();
            thread::spawn(move || store.observe(number.to_string()).is_err())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    assert!(before.elapsed() < SHORT * 30, "{:?}", before.elapsed());
    site.server.delay(Duration::ZERO);
    eventually("it recovers", || store.observe("1").is_ok());
}

#[test]
fn the_breaker_leaves_a_dead_server_alone_and_tries_it_again() {
    let site = Site::new();
    let store = site.quick_store();
    let state = |store: &Dedup| store.stats().authority.unwrap().breaker;
    assert_eq!(state(&store), BreakerState::Closed);
    site.server.outage(Some(ServerFault::Refuse));
    for number in 0..200 {
        assert!(store.observe(number.to_string()).is_err());
    }
    let calls = site.calls();
    assert!(calls < 40, "{calls} calls of a dead server");
    assert_ne!(state(&store), BreakerState::Closed);
    let error = store.observe("1").unwrap_err();
    assert!(error.is_transient());
    assert!(store.stats().authority.unwrap().last_error.unwrap().contains("down"));
    site.server.outage(None);
    eventually("it closes again", || store.observe("1").is_ok());
    assert_eq!(state(&store), BreakerState::Closed);
}

#[test]
fn in_an_outage_keys_are_assumed_new_where_that_is_chosen() {
    for durability in [Durability::Process, Durability::Sync] {
        let site = Site::new();
        let dir = fast_dir();
        let path = dir.path().join("a");
        let builder = || {
            let builder = site.builder().authority_deadline(SHORT).durability(durability);
            builder.on_outage(OnOutage::AssumeNew)
        };
        let a = builder().open(&path).unwrap();
        assert!(is_new(&a, "before"));
        site.server.outage(Some(ServerFault::LoseRequest));
        assert!(is_new(&a, "1"));
        assert!(!is_new(&a, "1"), "it is marked here");
        assert!(!is_new(&a, "before"));
        let verdicts = a.observe_batch(&["1", "2", "3", "2"]).unwrap();
        use Verdict::{Duplicate, New};
        assert_eq!(verdicts, [Duplicate, New, New, Duplicate]);
        // One scope of the same store takes no chances.
        let strict = a.on_outage(OnOutage::Fail);
        assert!(strict.observe("4").is_err());
        assert_eq!(a.stats().authority.unwrap().assumed_new, 3);
        a.close().unwrap();
        drop(a);
        // It starts without the server too, and knows what it assumed.
        let a = builder().open(&path).unwrap();
        assert!(!is_new(&a, "1") && !is_new(&a, "2"));
        assert!(matches!(site.quick_builder_error(), Error::Authority { .. }));
        site.server.outage(None);
        eventually("it recovers", || a.on_outage(OnOutage::Fail).observe("5").is_ok());
        assert!(!is_new(&site.store(), "5"));
    }
}

impl Site {
    fn quick_builder_error(&self) -> Error {
        self.builder().authority_deadline(SHORT).in_memory().unwrap_err()
    }
}

/// A store that opened without its authority agrees with it later.
#[test]
fn another_secret_is_noticed_when_the_server_is_back() {
    let site = Site::new();
    let _right = site.store();
    site.server.outage(Some(ServerFault::Refuse));
    let builder = site.builder().secret([9; 32]).authority_deadline(SHORT);
    let wrong = builder.on_outage(OnOutage::AssumeNew).in_memory().unwrap();
    site.server.outage(None);
    let strict = wrong.on_outage(OnOutage::Fail);
    eventually("it is refused", || {
        matches!(strict.observe("1"), Err(Error::Authority { transient: false, .. }))
    });
}

/// What the disk does not take the authority keeps; what only the disk would keep is an error.
#[test]
fn a_disk_that_fails_costs_calls_and_no_answers() {
    let site = Site::new();
    let disk = SimDisk::new();
    let builder = site.builder().authority_deadline(SHORT).durability(Durability::Sync);
    let store = builder.open_simulated(&disk).unwrap();
    let other = site.quick_store();
    assert!(is_new(&store, "before"));
    let kind = std::io::ErrorKind::StorageFull;
    disk.set_fault(Some(Fault { at: disk.calls() + 1, kind, for_ever: true }));
    assert!(is_new(&store, "1"));
    assert!(!is_new(&store, "1") && !is_new(&other, "1"));
    let verdicts = store.observe_batch(&["1", "2", "3"]).unwrap();
    assert_eq!(verdicts, [Verdict::Duplicate, Verdict::New, Verdict::New]);
    site.server.outage(Some(ServerFault::Refuse));
    let bold = store.on_outage(OnOutage::AssumeNew);
    for _ in 0..2 {
        assert!(bold.observe("4").is_err(), "nobody would know of it");
    }
    disk.set_fault(None);
    site.server.heal();
    eventually("it recovers", || store.observe("4").is_ok_and(|v| v == Verdict::New));
    assert!(!is_new(&other, "4"));
}

/// A server that always takes longer than half a slice is asked a second time, and no more.
#[test]
fn slices_may_be_short_beside_the_server() {
    let site = Site::new();
    let builder = site.builder().window(Duration::from_millis(700)).clock(SystemClock);
    let store = builder.in_memory().unwrap();
    site.server.delay(Duration::from_millis(60));
    for key in ["1", "2"] {
        let before = site.calls();
        assert!(is_new(&store, key));
        assert!(site.calls() - before <= 2);
    }
}

/// In memory, and refuses to work for one space.
struct Guarded(MemoryAuthority);

#[rustfmt::skip]
impl Authority for Guarded {
    fn name(&self) -> String { self.0.name() }
    fn open(&self, space: &str, check: u64, deadline: Instant) -> Told<Opened> {
        self.0.open(space, check, deadline)
    }
    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Told<Answers> {
        if rows.iter().any(|row| row.space == "forbidden") {
            return Err(AuthorityError::refused("no right to write"));
        }
        self.0.rows(rows, deadline)
    }
    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Told<Forgotten> {
        self.0.forgotten(space, after, deadline)
    }
    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Told<Acquired> {
        self.0.acquire(space, request, deadline)
    }
    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Told<Vec<Told<Appended>>> {
        self.0.append(appends, deadline)
    }
    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Told<()> {
        self.0.release(space, epoch, holder, deadline)
    }
    fn slices(&self, space: &str, deadline: Instant) -> Told<Vec<SliceInfo>> {
        self.0.slices(space, deadline)
    }
    fn read(&self, space: &str, buckets: &[Bucket], deadline: Instant) -> Told<Vec<Vec<StoredChunk>>> {
        self.0.read(space, buckets, deadline)
    }
}

#[test]
fn a_space_without_rights_keeps_no_other_from_the_server() {
    let site = Site::new();
    let server = Arc::new(Guarded(site.server.clone()));
    let store = |space: &str| {
        let builder = site.builder().authority(Arc::clone(&server), Ownership::Shared);
        builder.authority_space(space).in_memory().unwrap()
    };
    let (forbidden, orders) = (store("forbidden"), store("orders"));
    for number in 0..20 {
        let refused = forbidden.observe(number.to_string());
        assert!(matches!(refused, Err(Error::Authority { transient: false, .. })));
        assert!(is_new(&orders, &number.to_string()));
    }
    for number in 0..20 {
        assert!(forbidden.observe(number.to_string()).is_err());
    }
    assert!(is_new(&orders, "after"));
    assert_eq!(orders.stats().authority.unwrap().breaker, BreakerState::Closed);
}
