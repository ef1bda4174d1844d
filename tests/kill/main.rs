//! `kill -9` at any moment: promises 1, 2 and 8 at the durability level `Process`. The test binary
//! runs itself as a child, kills it, opens the store that it leaves behind, and asks for every key
//! that the child had acknowledged.
//!
//! `ONCEONLY_KILL_CYCLES` (default 225 for all tests together) and `ONCEONLY_SEED` scale it.

mod board;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod judge;
mod plan;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use board::Board;
use common::{Rng, env_number, fast_dir};
use judge::Judge;
use onceonly::ManualClock;
use plan::Time;
use rustix::time::{ClockId, clock_gettime};

/// The clock that the engine's window follows.
pub(crate) fn boot_nanos() -> i64 {
    #[cfg(target_os = "linux")]
    let now = clock_gettime(ClockId::Boottime);
    #[cfg(not(target_os = "linux"))]
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// After so many cycles a new store is begun, because young stores have kill points of their own.
const CYCLES_PER_STORE: u64 = 25;

/// Not a test by itself: what the tests below run in another process.
#[test]
fn child_to_be_killed() {
    child::run_if_child();
}

/// Promises 1, 2, 8 on one boot, where the maps of the killed process are used as they are.
#[test]
fn nothing_acknowledged_is_lost_by_kills_on_one_boot() {
    run(Time::System);
}

/// Promises 1, 2, 8 when each restart is a reboot, so that everything is verified and rebuilt, with
/// slices turning much faster.
#[test]
fn nothing_acknowledged_is_lost_by_kills_before_reboots() {
    run(Time::Manual);
}

/// Promises 1, 2, 8 where the window follows the timestamps of events, some of them late.
#[test]
fn nothing_acknowledged_is_lost_by_kills_in_event_time() {
    run(Time::Event);
}

fn run(time: Time) {
    let seed = env_number(child::SEED, 1);
    let cycles = env_number("ONCEONLY_KILL_CYCLES", 225) / 3;
    let mut rng = Rng::new(seed);
    let mut first = 0;
    while first < cycles {
        let last = cycles.min(first + CYCLES_PER_STORE);
        run_store(time, seed, first..last, &mut rng);
        first = last;
    }
}

/// Kills children that work on one store, one after the other.
fn run_store(time: Time, seed: u64, cycles: std::ops::Range<u64>, rng: &mut Rng) {
    let dir = fast_dir();
    let (store, board) = (dir.path().join("store"), dir.path().join("board"));
    let mut judge = Judge::new(time);
    let mut manual = 0;
    let last = cycles.end - 1;
    for cycle in cycles {
        let board_of_cycle = Board::create(&board);
        board_of_cycle.set_time(manual, manual);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_to_be_killed", "--nocapture"]);
        command.env(child::STORE, &store).env(child::BOARD, &board);
        command.env(child::SEED, seed.to_string()).env(child::CYCLE, cycle.to_string());
        if time == Time::Manual {
            command.env(child::MANUAL, manual.to_string());
        }
        if time == Time::Event {
            // Up to two slices pass between two children.
            let pause = rng.below(200_000_000).cast_signed();
            command.env(child::EVENT, (judge.newest_event() + pause).to_string());
        }
        kill(command, &board_of_cycle, rng);
        judge.note(&board_of_cycle, seed, cycle);
        manual = board_of_cycle.latest();
        // Now and then the next child finds the store as the last one left it, and is killed while
        // it recovers.
        if cycle == last || rng.below(3) != 0 {
            judge_store(time, &store, manual, &mut judge);
        }
    }
}

/// Starts the child and kills it: sometimes while it opens the store, mostly in the middle of work.
fn kill(mut command: Command, board: &Board, rng: &mut Rng) {
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let early = rng.below(4) == 0;
    while !early && !board.is_opened() {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the child ended by itself: {status}");
        }
        thread::sleep(Duration::from_micros(100));
    }
    thread::sleep(Duration::from_micros(rng.below(20_000)));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "the child ended by itself: {status}");
}

fn judge_store(time: Time, store: &Path, manual: i64, judge: &mut Judge) {
    let builder = match time {
        Time::System | Time::Event => time.builder(),
        Time::Manual => time.builder().clock(ManualClock::new(child::wall(manual))),
    };
    let store = builder.open(store).unwrap();
    match time {
        Time::System => judge.judge(&store, boot_nanos),
        Time::Manual => judge.judge(&store, || manual),
        Time::Event => judge.judge_events(&store),
    }
    store.close().unwrap();
}
