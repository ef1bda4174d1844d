//! A store in its steady state: the window full, the oldest slice expiring as fast as new keys come.

pub(crate) mod keys;

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use onceonly::{Builder, Dedup, ManualClock, Verdict};
use tempfile::TempDir;

use keys::{Chunk, Key, Repeat, Stream};

/// Time from one new key to the next.
const KEY_NS: u64 = 1000;
/// Keys made ahead of each timed part.
const CHUNK: usize = 1 << 17;

/// Times that keep all the benches together within a few minutes.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.sample_size(20);
    group
}

/// A store on disk, or in memory, that a stream runs through.
pub(crate) struct Steady {
    pub(crate) store: Dedup,
    clock: ManualClock,
    stream: Stream,
    chunk: Chunk,
    now: u64,
    /// Deleted after the store is closed: fields are dropped in order.
    _dir: Option<TempDir>,
}

impl Steady {
    pub(crate) fn on_disk(live: u64, repeat: Repeat) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let (clock, builder) = builder(live);
        let store = builder.open(dir.path()).expect("open");
        Steady::filled(store, clock, live, repeat, Some(dir))
    }

    /// On disk, with other settings.
    pub(crate) fn with(live: u64, set: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let (clock, builder) = builder(live);
        let store = set(builder).open(dir.path()).expect("open");
        Steady::filled(store, clock, live, Repeat::Window, Some(dir))
    }

    pub(crate) fn in_memory(live: u64) -> Self {
        let (clock, builder) = builder(live);
        Steady::filled(builder.in_memory().expect("open"), clock, live, Repeat::Window, None)
    }

    fn filled(
        store: Dedup,
        clock: ManualClock,
        live: u64,
        repeat: Repeat,
        dir: Option<TempDir>,
    ) -> Self {
        let stream = Stream::new(7, live, 20, repeat);
        let mut steady =
            Steady { store, clock, stream, chunk: Chunk::default(), now: 0, _dir: dir };
        while steady.stream.new_keys() < 2 * live {
            steady.feed(CHUNK as u64, |store, keys| observe_batches(store, keys, 64));
        }
        steady.store.settle();
        steady
    }

    /// The share of repeated keys from here on.
    pub(crate) fn repeat_per_mille(&mut self, per_mille: u64) -> &mut Self {
        self.stream.set_per_mille(per_mille);
        self
    }

    /// Lets `work` have the next `keys` of the stream, and returns the time it took.
    pub(crate) fn feed(&mut self, keys: u64, mut work: impl FnMut(&Dedup, &[Key])) -> Duration {
        self.chunks(keys, |store, clock, chunk, now| {
            for tick in &chunk.ticks {
                advance(clock, now, tick.now);
                work(store, &chunk.keys[tick.range.clone()]);
            }
        })
    }

    /// Lets each of `threads` have its part of the next `keys`; one of them moves the clock.
    pub(crate) fn feed_threads(
        &mut self,
        keys: u64,
        threads: usize,
        work: impl Fn(&Dedup, &[Key]) + Sync,
    ) -> Duration {
        let work = &work;
        self.chunks(keys, |store, clock, chunk, now| {
            thread::scope(|scope| {
                for thread in 1..threads {
                    scope.spawn(move || {
                        for tick in &chunk.ticks {
                            work(store, share(&chunk.keys[tick.range.clone()], thread, threads));
                        }
                    });
                }
                for tick in &chunk.ticks {
                    advance(clock, now, tick.now);
                    work(store, share(&chunk.keys[tick.range.clone()], 0, threads));
                }
            });
        })
    }

    /// Makes keys, chunk by chunk, and times what `work` does with them.
    fn chunks(
        &mut self,
        keys: u64,
        mut work: impl FnMut(&Dedup, &ManualClock, &Chunk, &mut u64),
    ) -> Duration {
        let mut took = Duration::ZERO;
        let mut left = keys;
        while left > 0 {
            let len = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            self.stream.fill(len, &mut self.chunk);
            let start = Instant::now();
            work(&self.store, &self.clock, &self.chunk, &mut self.now);
            took += start.elapsed();
            left -= len as u64;
        }
        took
    }
}

fn builder(live: u64) -> (ManualClock, Builder) {
    let clock = ManualClock::new(SystemTime::now());
    let window = Duration::from_nanos(live * KEY_NS);
    let builder = Dedup::builder().window(window).expected_keys(live).clock(clock.clone());
    (clock, builder)
}

fn advance(clock: &ManualClock, now: &mut u64, to: u64) {
    clock.advance(Duration::from_nanos((to - *now) * KEY_NS));
    *now = to;
}

fn share(keys: &[Key], thread: usize, threads: usize) -> &[Key] {
    &keys[keys.len() * thread / threads..keys.len() * (thread + 1) / threads]
}

pub(crate) fn observe_each(store: &Dedup, keys: &[Key]) {
    for key in keys {
        let _: Verdict = store.observe(key).expect("observe");
    }
}

pub(crate) fn observe_batches(store: &Dedup, keys: &[Key], batch: usize) {
    let mut verdicts = Vec::with_capacity(batch);
    for batch in keys.chunks(batch) {
        store.observe_batch_into(batch, &mut verdicts).expect("observe a batch");
    }
}
