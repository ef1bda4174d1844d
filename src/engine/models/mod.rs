//! Models: the engine itself, with loom's locks and atomics, small and in memory. Each model is run
//! once for every order in which its threads can meet, up to a number of preemptions.
//!
//! Mapped memory, the clock and storage are the ordinary ones: loom does not see them. In what is
//! modelled here a lock guards what they hold, and the locks are loom's.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib --features test-storage --target-dir target/loom models`

mod claims;
mod commit;
mod journal;
mod rotation;
mod sealing;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use loom::thread::JoinHandle;

use super::Engine;
use crate::config::{Builder, OnOutage};
use crate::digest::Digest;
use crate::time::ManualClock;
use crate::verdict::Verdict;

/// Most models are small enough for so many switches that no thread asked for.
const PREEMPTIONS: usize = 4;
/// Words of a thread's stack; opening a store takes more than loom's default.
const STACK: usize = 1 << 16;
/// Slices of the modelled stores are this long, their window is two of them.
const SLICE: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(6);

/// Runs a model in all orders with at most `preemptions` such switches.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        let model = Arc::clone(&model);
        spawn(move || model()).join().expect("the model ran");
    });
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let thread = loom::thread::Builder::new().stack_size(STACK);
    thread.spawn(work).expect("a model may have five threads")
}

/// Runs `one` and `other` at the same time; the thread that calls takes part.
fn both<T: Send + 'static, U>(
    one: impl FnOnce() -> T + Send + 'static,
    other: impl FnOnce() -> U,
) -> (T, U) {
    let one = spawn(one);
    let other = other();
    (one.join().expect("the thread ran"), other)
}

/// What a model says must be the same each time it runs, so nothing of it is random.
fn settings(clock: &ManualClock) -> Builder {
    Builder::default()
        .window(WINDOW)
        .slices(2)
        .expected_keys(100)
        .shards(1)
        .secret([7; 32])
        .lease(Duration::from_secs(1))
        .clock(clock.clone())
}

fn clock() -> ManualClock {
    ManualClock::new(UNIX_EPOCH + Duration::from_secs(1_000_000))
}

fn open(builder: Builder) -> Arc<Engine> {
    let config = builder.settings.validate().expect("the settings are valid");
    super::open_in_memory(config).expect("there is memory")
}

/// A store on a clock that stands still.
fn store() -> (Arc<Engine>, ManualClock) {
    let clock = clock();
    (open(settings(&clock)), clock)
}

fn digest(number: u64) -> Digest {
    let bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Digest::new(bits, bits.rotate_left(32))
}

fn observe(engine: &Engine, key: u64) -> Verdict {
    engine.observe(digest(key), OnOutage::Fail).expect("the store works")
}
