//! Promise 3, "one winner": threads that mix all calls, while a clock thread turns the slices.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use common::{Rng, start, without_deadlock};
use onceonly::{Builder, Claim, CommitError, Dedup, Error, ManualClock, Outcome, Verdict};
use tempfile::TempDir;

const THREADS: u64 = 4;
const WINDOW: Duration = Duration::from_secs(64);
const KEYS: usize = 20_000;

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).slices(8).expected_keys(1_000).clock(clock.clone())
}

fn key(number: usize) -> String {
    format!("order-{number}")
}

/// How often each key was won.
struct Board {
    wins: Vec<AtomicU32>,
    /// Leases run out, so a commit may come too late.
    late: bool,
}

type Wins = Arc<Board>;

fn wins(late: bool) -> Wins {
    Arc::new(Board { wins: (0..KEYS).map(|_| AtomicU32::new(0)).collect(), late })
}

fn won(wins: &Wins, number: usize) {
    wins.wins[number].fetch_add(1, Ordering::Relaxed);
}

/// Who was granted a claim and is in time can commit it.
fn lost(wins: &Wins, failed: &CommitError) {
    let too_late = matches!(failed.error(), Error::LeaseLost { .. });
    assert!(too_late && wins.late, "{failed:?}");
}

/// One way to try for the keys `numbers`; an attempt may end undecided (claimed by a rival).
fn attempt(store: &Dedup, wins: &Wins, numbers: &[usize], rng: &mut Rng) {
    let keys: Vec<String> = numbers.iter().map(|number| key(*number)).collect();
    match rng.below(6) {
        0 | 1 => observe_batch(store, wins, numbers, &keys),
        2 => {
            for (number, key) in numbers.iter().zip(&keys) {
                match store.observe(key) {
                    Ok(Verdict::New) => won(wins, *number),
                    Ok(_) | Err(Error::InFlight { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        3 => claim_batch(store, wins, numbers, &keys, rng),
        4 => {
            for (number, key) in numbers.iter().zip(&keys) {
                if let Claim::Granted(guard) = store.claim(key).unwrap() {
                    match rng.below(3) {
                        0 => guard.abandon(),
                        1 => drop(guard),
                        _ => commit(wins, *number, guard),
                    }
                }
            }
        }
        _ => {
            for (number, key) in numbers.iter().zip(&keys) {
                let outcome = store.process_once(key, |_| Ok::<_, ()>(())).unwrap();
                if matches!(outcome, Outcome::Done(())) {
                    won(wins, *number);
                }
            }
        }
    }
}

fn observe_batch(store: &Dedup, wins: &Wins, numbers: &[usize], keys: &[String]) {
    let verdicts: Vec<Option<Verdict>> = match store.observe_batch(keys) {
        Ok(verdicts) => verdicts.into_iter().map(Some).collect(),
        Err(failed) => {
            let (decided, error) = failed.into_parts();
            assert!(matches!(error, Error::InFlight { .. }), "{error}");
            decided
        }
    };
    for (number, verdict) in numbers.iter().zip(verdicts) {
        if verdict == Some(Verdict::New) {
            won(wins, *number);
        }
    }
}

fn claim_batch(store: &Dedup, wins: &Wins, numbers: &[usize], keys: &[String], rng: &mut Rng) {
    let (mut guards, mut granted) = (Vec::new(), Vec::new());
    for (number, claim) in numbers.iter().zip(store.claim_batch(keys).unwrap()) {
        if let Claim::Granted(guard) = claim {
            guards.push(guard);
            granted.push(*number);
        }
    }
    if rng.below(4) == 0 {
        return drop(guards);
    }
    for (number, answer) in granted.into_iter().zip(store.commit_batch(guards)) {
        match answer {
            Ok(()) => won(wins, number),
            Err(failed) => lost(wins, &failed),
        }
    }
}

fn commit(wins: &Wins, number: usize, guard: onceonly::ClaimGuard) {
    match guard.commit() {
        Ok(()) => won(wins, number),
        Err(failed) => lost(wins, &failed),
    }
}

/// Lets `THREADS` threads fight for all keys while the clock moves by `step` again and again, in
/// total by less than the window. Then each key must have been won exactly once.
fn fight(store: &Dedup, clock: &ManualClock, step: Duration, seed: u64, late: bool) {
    let wins = wins(late);
    let over = Arc::new(AtomicBool::new(false));
    let ticking = {
        let (clock, over) = (clock.clone(), Arc::clone(&over));
        thread::spawn(move || {
            let mut left = WINDOW - Duration::from_secs(1);
            while !over.load(Ordering::Relaxed) && left > step {
                clock.advance(step);
                left -= step;
                thread::yield_now();
            }
        })
    };
    let fighters: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (store, wins) = (store.clone(), Arc::clone(&wins));
            thread::spawn(move || fight_for_all(&store, &wins, &mut Rng::new(seed + thread)))
        })
        .collect();
    for fighter in fighters {
        fighter.join().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    ticking.join().unwrap();
    // What everybody gave back is still free, and everything else is taken.
    for number in 0..KEYS {
        if store.observe(key(number)).unwrap() == Verdict::New {
            won(&wins, number);
        }
        assert_eq!(wins.wins[number].load(Ordering::Relaxed), 1, "winners of {}", key(number));
    }
}

fn fight_for_all(store: &Dedup, wins: &Wins, rng: &mut Rng) {
    let mut at = 0;
    while at < KEYS {
        let count = (1 + rng.below(60) as usize).min(KEYS - at);
        // Threads meet in the same stretch, in different order, and some keys come twice.
        let mut numbers: Vec<usize> = (at..at + count).collect();
        let turn = rng.below(count as u64) as usize;
        numbers.rotate_left(turn);
        numbers.push(numbers[0]);
        attempt(store, wins, &numbers, rng);
        at += count;
    }
}

/// Promise 3, on disk, across rotations and growth; each round starts when the last has expired.
#[test]
fn exactly_one_thread_wins_each_key_on_disk() {
    without_deadlock(|| {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let store = builder(&clock).lease(WINDOW * 100).open(dir.path()).unwrap();
        for round in 0..3 {
            fight(&store, &clock, Duration::from_millis(5), 100 * round, false);
            clock.advance(WINDOW + WINDOW / 8);
        }
    });
}

/// Promises 3 and 8: leases run out while their owners work, rivals take over, and still exactly
/// one commit counts.
#[test]
fn exactly_one_thread_wins_each_key_when_leases_run_out() {
    without_deadlock(|| {
        let clock = ManualClock::new(start());
        let store = builder(&clock).lease(Duration::from_millis(1)).in_memory().unwrap();
        for round in 0..3 {
            fight(&store, &clock, Duration::from_millis(2), 1_000 + 100 * round, true);
            clock.advance(WINDOW + WINDOW / 8);
        }
    });
}

/// Promise 3 for one key, asked by all threads at the same time, again and again.
#[test]
fn one_key_asked_by_all_threads_is_new_once_a_window() {
    without_deadlock(|| {
        let clock = ManualClock::new(start());
        let store = builder(&clock).in_memory().unwrap();
        for _ in 0..300 {
            let barrier = Arc::new(std::sync::Barrier::new(THREADS as usize));
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (store, barrier) = (store.clone(), Arc::clone(&barrier));
                    thread::spawn(move || {
                        barrier.wait();
                        store.observe("the key").unwrap()
                    })
                })
                .collect();
            let verdicts = threads.into_iter().map(|thread| thread.join().unwrap());
            assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::New).count(), 1);
            clock.advance(WINDOW + WINDOW / 8);
        }
    });
}

/// Promises 1 and 2 while others work: forgetting and asking in all threads never mixes keys up.
#[test]
fn threads_with_keys_of_their_own_do_not_disturb_each_other() {
    without_deadlock(|| {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let store = builder(&clock).open(dir.path()).unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (store, clock) = (store.scope(format!("{thread}")), clock.clone());
                thread::spawn(move || {
                    for number in 0..4_000 {
                        assert_eq!(store.observe(key(number)).unwrap(), Verdict::New);
                        assert!(store.contains(key(number)).unwrap());
                        if number % 3 == 0 {
                            assert!(store.forget(key(number)).unwrap());
                            assert!(!store.contains(key(number)).unwrap());
                        }
                        if number % 100 == 0 {
                            clock.advance(Duration::from_millis(100));
                        }
                    }
                    for number in 0..4_000 {
                        let live = store.contains(key(number)).unwrap();
                        assert_eq!(live, number % 3 != 0, "{}", key(number));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Closing while others work: they get answers or `Closed`, and nothing acknowledged is lost.
#[test]
fn closing_while_others_work_loses_nothing() {
    without_deadlock(|| {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let store = builder(&clock).open(dir.path()).unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let store = store.scope(format!("{thread}"));
                thread::spawn(move || {
                    for number in 0.. {
                        match store.observe(key(number)) {
                            Ok(verdict) => assert_eq!(verdict, Verdict::New),
                            Err(Error::Closed) => return number,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    unreachable!("the store is closed before the numbers end")
                })
            })
            .collect();
        while store.stats().new < 5_000 {
            thread::yield_now();
        }
        store.close().unwrap();
        let acknowledged: Vec<usize> =
            threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let store = builder(&clock).open(dir.path()).unwrap();
        for (thread, count) in acknowledged.into_iter().enumerate() {
            let scope = store.scope(format!("{thread}"));
            for number in 0..count {
                assert!(scope.contains(key(number)).unwrap(), "{thread}: {}", key(number));
            }
            assert!(!scope.contains(key(count)).unwrap(), "an Err marked {thread}: {count}");
        }
    });
}

fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// 256 stores in one process (one a partition) share their background workers, stay apart, and a
/// small one (as it is by default) costs at most 1 MiB of memory and of disk.
#[test]
fn many_stores_share_one_process() {
    without_deadlock(|| {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let small = || Dedup::builder().window(WINDOW);
        let before = thread_count();
        let stores: Vec<Dedup> = (0..256)
            .map(|n| small().clock(clock.clone()).open(dir.path().join(format!("{n}"))).unwrap())
            .collect();
        for round in 0..3 {
            for (n, store) in stores.iter().enumerate() {
                let keys: Vec<String> = (0..50).map(|i| format!("{round}-{i}")).collect();
                assert_eq!(store.observe_batch(&keys).unwrap(), vec![Verdict::New; 50]);
                assert_eq!(store.observe(format!("own-{n}")).unwrap() == Verdict::New, round == 0);
                assert!(!store.contains(format!("own-{}", n + 1)).unwrap());
            }
            clock.advance(WINDOW / 8);
        }
        // Other tests of this process run their own threads at the same time: a margin for them.
        assert!(thread_count() < before + 64, "{} threads", thread_count());
        for store in &stores {
            let stats = store.stats();
            assert!(stats.memory_bytes <= 1 << 20, "{} bytes", stats.memory_bytes);
            assert!(stats.disk_bytes <= 1 << 20, "{} bytes on disk", stats.disk_bytes);
            store.close().unwrap();
        }
    });
}
