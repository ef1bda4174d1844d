//! What the integration tests and the fuzz targets share: the naive model of the contract, a store
//! that runs side by side with it, and small helpers. It uses the public API only.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

pub(crate) mod breaks;
pub(crate) mod fixture;
pub(crate) mod model;
pub(crate) mod ops;
pub(crate) mod pair;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

/// A fixed start, so that a failure is the same failure tomorrow.
pub(crate) fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// The number in the environment variable `name`, or `default`.
pub(crate) fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A directory for tests that open and close stores thousands of times: in memory where the system
/// has such a file system, because every close waits for the disk.
pub(crate) fn fast_dir() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("temporary directory")
}

/// A small generator of random numbers (splitmix64): the tests need repeatable ones, not good ones. A
/// fuzzer says what the first ones are.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
    /// What is taken before anything is made up, last to first.
    given: Vec<u8>,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng { state: seed, given: Vec::new() }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Rng { state: bytes.len() as u64, given: bytes.iter().rev().copied().collect() }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if self.given.is_empty() {
            return self.next() % bound;
        }
        // As few bytes as say it, so that a small change of them is a small change of what happens.
        let bytes = (64 - bound.leading_zeros()).div_ceil(8);
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.given.pop().unwrap_or(0)))
            % bound
    }
}

/// The bytes of key number `number`. Lengths vary, because digests take another path for empty,
/// short, middling and long keys.
pub(crate) fn key_bytes(number: u32) -> Vec<u8> {
    let padding = match number % 8 {
        _ if number == 0 => return Vec::new(),
        0 => 300,
        1 => 150,
        2 => 40,
        _ => 0,
    };
    let mut key = format!("key-{number}").into_bytes();
    key.resize(key.len() + padding, b'.');
    key
}

/// Runs `work` on a thread of its own and fails when it has not ended within two minutes: what is
/// waited for takes a second, so only a deadlock takes so long.
pub(crate) fn without_deadlock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let worker = thread::spawn(move || {
        let value = work();
        // The receiver is gone only after it has failed the test.
        let _ = done.send(value);
    });
    match result.recv_timeout(Duration::from_secs(120)) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end in sight: a deadlock"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(worker.join().expect_err("the work panicked"))
        }
    }
}
