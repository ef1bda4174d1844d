//! The child: opens the store, works on it with several threads, and publishes each step, until it
//! is killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use onceonly::{Claim, ClaimGuard, ClaimOptions, Dedup, ManualClock, Timestamp, Verdict};

use crate::board::{Board, OPS, WORKERS, Worker};
use crate::boot_nanos;
use crate::common::{Rng, env_number, start};
use crate::plan::{Author, Plan, Time};

pub(crate) const STORE: &str = "ONCEONLY_KILL_STORE";
pub(crate) const BOARD: &str = "ONCEONLY_KILL_BOARD";
pub(crate) const MANUAL: &str = "ONCEONLY_KILL_MANUAL_NS";
pub(crate) const EVENT: &str = "ONCEONLY_KILL_EVENT_NS";
pub(crate) const CYCLE: &str = "ONCEONLY_KILL_CYCLE";
pub(crate) const SEED: &str = "ONCEONLY_SEED";

/// Runs when the environment says that this process is a child; does not return then.
pub(crate) fn run_if_child() {
    let Ok(store) = std::env::var(STORE) else { return };
    let board = Arc::new(Board::open(&PathBuf::from(std::env::var(BOARD).expect("board"))));
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<i64>().expect("a number"));
    let (manual, event) = (number(MANUAL), number(EVENT));
    let (seed, cycle) = (env_number(SEED, 0), env_number(CYCLE, 0));
    let clock = manual.map(|now| (ManualClock::new(wall(now)), now));
    let time = match (&clock, event) {
        (Some(_), _) => Time::Manual,
        (None, Some(_)) => Time::Event,
        (None, None) => Time::System,
    };
    let newest = Arc::new(AtomicI64::new(event.unwrap_or(0)));
    let builder = match &clock {
        Some((clock, _)) => time.builder().clock(clock.clone()),
        None => time.builder(),
    };
    let store = builder.open(store).expect("the child opens the store");
    board.set_opened();
    let mut threads = Vec::new();
    for worker in 0..WORKERS {
        let (store, board) = (store.clone(), Arc::clone(&board));
        let author = Author { seed, cycle, worker };
        let newest = Arc::clone(&newest);
        threads.push(thread::spawn(move || match time {
            Time::Event => work_at(&store, &board, &newest, author),
            _ => work(&store, &board, time, author),
        }));
    }
    if let Some((clock, now)) = clock {
        threads.push(thread::spawn(move || turn(&board, &clock, now, seed ^ cycle)));
    }
    for thread in threads {
        thread.join().expect("a thread of the child panicked");
    }
}

/// The wall clock at `nanos` of the manual time.
pub(crate) fn wall(nanos: i64) -> SystemTime {
    start() + Duration::from_nanos(nanos.unsigned_abs())
}

/// Moves the manual clock on, about a slice in the life of a child.
fn turn(board: &Board, clock: &ManualClock, mut now: i64, seed: u64) {
    let mut rng = Rng::new(seed);
    loop {
        let step = rng.below(10_000_000).cast_signed();
        board.set_time(now, now + step);
        clock.advance(Duration::from_nanos(step.unsigned_abs()));
        now += step;
        board.set_time(now, now);
        thread::sleep(Duration::from_micros(50));
    }
}

fn work(store: &Dedup, board: &Board, time: Time, author: Author) {
    let here = board.worker(author.worker);
    let earliest = || if time == Time::Manual { board.earliest() } else { boot_nanos() };
    let latest = || if time == Time::Manual { board.latest() } else { boot_nanos() };
    let mut held = Vec::new();
    for op in 0..OPS {
        let keys = author.keys(op);
        here.start(op, earliest());
        carry_out(store, here, author, op, &keys, &mut held);
        here.acknowledge(op, latest());
    }
    // Nothing is left to do but to be killed.
    loop {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Event time between two operations: so little that a worker whose core was taken away for as long
/// as another takes for all its operations is still within the window.
const EVENT_STEP_NS: i64 = 100_000;

/// The timestamp at `nanos` of event time.
pub(crate) fn event(nanos: i64) -> Timestamp {
    Timestamp::from(wall(nanos))
}

/// [`work`] in event time: an operation's timestamp is on the board before it begins.
fn work_at(store: &Dedup, board: &Board, newest: &AtomicI64, author: Author) {
    let here = board.worker(author.worker);
    let mut held = Vec::new();
    for op in 0..OPS {
        let keys = author.keys(op);
        let now = newest.fetch_add(EVENT_STEP_NS, Ordering::Relaxed) + EVENT_STEP_NS;
        let at = (now - author.lateness(op)).max(0);
        here.start(op, at);
        carry_out_at(store, here, author, op, &keys, event(at), &mut held);
        here.acknowledge(op, at);
    }
    loop {
        thread::sleep(Duration::from_millis(1));
    }
}

fn carry_out_at(
    store: &Dedup,
    here: Worker<'_>,
    author: Author,
    op: usize,
    keys: &[String],
    at: Timestamp,
    held: &mut Vec<ClaimGuard>,
) {
    let claim = |key: &String| granted(store.claim_at(key, at).unwrap());
    match author.plan(op) {
        Plan::Observe => assert_eq!(store.observe_at(&keys[0], at).unwrap(), Verdict::New),
        Plan::Batch(_) => {
            let keys: Vec<_> = keys.iter().map(|key| (key, at)).collect();
            let verdicts = store.observe_batch_at(&keys).unwrap();
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New), "{keys:?}");
        }
        Plan::ClaimAndCommit | Plan::ClaimAndCommitBatch(_) => {
            let guards: Vec<_> = keys.iter().map(claim).collect();
            keep(&guards, author, op);
            here.committing(op);
            assert!(store.commit_batch(guards).iter().all(Result::is_ok));
        }
        Plan::Hold => held.push(claim(&keys[0])),
        Plan::Abandon => claim(&keys[0]).abandon(),
        Plan::Forget(_) => carry_out(store, here, author, op, keys, held),
    }
}

fn carry_out(
    store: &Dedup,
    here: Worker<'_>,
    author: Author,
    op: usize,
    keys: &[String],
    held: &mut Vec<ClaimGuard>,
) {
    match author.plan(op) {
        Plan::Observe => assert_eq!(store.observe(&keys[0]).unwrap(), Verdict::New, "{}", keys[0]),
        Plan::Batch(_) => {
            let verdicts = store.observe_batch(keys).unwrap();
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New), "{keys:?}");
        }
        Plan::ClaimAndCommit => {
            let guard = claim(store, &keys[0]);
            here.committing(op);
            guard.commit_with(author.result(op, 0).unwrap()).unwrap();
        }
        Plan::ClaimAndCommitBatch(_) => {
            let claims = store.claim_batch(keys).unwrap();
            let guards: Vec<_> = claims.into_iter().map(granted).collect();
            keep(&guards, author, op);
            here.committing(op);
            assert!(store.commit_batch(guards).iter().all(Result::is_ok));
        }
        Plan::Hold => held.push(claim(store, &keys[0])),
        Plan::Abandon => claim(store, &keys[0]).abandon(),
        Plan::Forget(_) => {
            // It may have expired, but never be live afterwards.
            let _ = store.forget(&keys[0]).unwrap();
            assert!(!store.contains(&keys[0]).unwrap(), "{} was forgotten", keys[0]);
        }
    }
}

fn keep(guards: &[ClaimGuard], author: Author, op: usize) {
    for (part, guard) in guards.iter().enumerate() {
        if let Some(result) = author.result(op, part) {
            guard.keep(result).unwrap();
        }
    }
}

/// Claims with the key as note, so that the parent recognises the claim.
fn claim(store: &Dedup, key: &str) -> ClaimGuard {
    granted(store.claim_with(key, ClaimOptions::new().note(key)).unwrap())
}

pub(crate) fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}
