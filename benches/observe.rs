//! `observe`: new keys, duplicates and a mix of both; one at a time, in batches, by two threads.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::time::{Duration, Instant};

use common::keys::{Key, Repeat, key, mix};
use common::{Steady, group, observe_batches, observe_each};
use criterion::{Criterion, criterion_group, criterion_main};
use onceonly::{Dedup, DigestKind, Durability};

const LIVE: u64 = 1_000_000;

/// New keys only, duplicates only, and the mix that a queue delivers.
fn kinds(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/1M");
    let mut steady = Steady::on_disk(LIVE, Repeat::Window);
    for (kind, per_mille) in [("new", 0), ("duplicate", 1000), ("mixed", 20)] {
        steady.repeat_per_mille(per_mille);
        group.bench_function(format!("{kind}/one"), |b| {
            b.iter_custom(|keys| steady.feed(keys, observe_each));
        });
        group.bench_function(format!("{kind}/batch-32"), |b| {
            b.iter_custom(|keys| steady.feed(keys, |s, k| observe_batches(s, k, 32)));
        });
    }
}

fn batch_sizes(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/10M/mixed");
    let mut steady = Steady::on_disk(10 * LIVE, Repeat::Window);
    group.bench_function("one", |b| b.iter_custom(|keys| steady.feed(keys, observe_each)));
    for batch in [8, 16, 32, 64, 128, 256, 1024] {
        group.bench_function(format!("batch-{batch}"), |b| {
            b.iter_custom(|keys| steady.feed(keys, |s, k| observe_batches(s, k, batch)));
        });
    }
}

/// From what fits into the cache to what does not; `ONCEONLY_BENCH_LIVE=100000000` adds a size.
fn sizes(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/mixed/live keys");
    let larger = std::env::var("ONCEONLY_BENCH_LIVE").ok();
    let larger = larger.map(|text| text.parse().expect("ONCEONLY_BENCH_LIVE is a number of keys"));
    for live in [1 << 16, 1 << 18, LIVE, 4 * LIVE].into_iter().chain(larger) {
        let mut steady = Steady::on_disk(live, Repeat::Window);
        group.bench_function(format!("{live}/one"), |b| {
            b.iter_custom(|keys| steady.feed(keys, observe_each));
        });
        group.bench_function(format!("{live}/batch-32"), |b| {
            b.iter_custom(|keys| steady.feed(keys, |s, k| observe_batches(s, k, 32)));
        });
    }
}

/// What a longer key costs under each digest. Duplicates, so that the store stays as it is.
fn key_lengths(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/64k/key length");
    for (name, kind) in [("xxh3", DigestKind::Xxh3), ("siphash13", DigestKind::SipHash13)] {
        let builder = Dedup::builder().window(Duration::from_secs(24 * 3600)).digest(kind);
        let store = builder.expected_keys(1 << 17).in_memory().expect("open");
        for len in [8, 16, 36, 64, 128, 256] {
            let keys: Vec<Vec<u8>> = (0..1 << 14).map(|index| long_key(index, len)).collect();
            let mut verdicts = Vec::new();
            for batch in keys.chunks(64) {
                store.observe_batch_into(batch, &mut verdicts).expect("observe a batch");
            }
            group.bench_function(format!("{name}/{len}/batch-32"), |b| {
                b.iter_custom(|asked| {
                    let start = Instant::now();
                    for batch in keys.chunks(32).cycle().take(asked.div_ceil(32) as usize) {
                        store.observe_batch_into(batch, &mut verdicts).expect("observe a batch");
                    }
                    start.elapsed()
                });
            });
        }
    }
}

/// A key of `len` bytes, at least 8.
fn long_key(index: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = key(len as u64, index).iter().copied().cycle().take(len).collect();
    bytes[..8].copy_from_slice(&mix(index).to_ne_bytes());
    bytes
}

/// What each level of durability costs, one at a time and in batches.
fn durability(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/64k/durability");
    let levels = [
        ("process", Durability::Process),
        ("interval-100ms", Durability::Interval(Duration::from_millis(100))),
        ("sync", Durability::Sync),
    ];
    for (name, level) in levels {
        let mut steady = Steady::with(1 << 16, |builder| builder.durability(level));
        group.bench_function(format!("{name}/one"), |b| {
            b.iter_custom(|keys| steady.feed(keys, observe_each));
        });
        for batch in [32, 1024] {
            group.bench_function(format!("{name}/batch-{batch}"), |b| {
                b.iter_custom(|keys| steady.feed(keys, |s, k| observe_batches(s, k, batch)));
            });
        }
    }
}

/// Time over keys: with two threads half of what a thread spends on a key.
fn threads(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/1M/threads");
    let mut steady = Steady::on_disk(LIVE, Repeat::EarlierChunks);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let numbers = std::iter::successors(Some(1), |threads| Some(threads * 2));
    for threads in numbers.take_while(|&threads| threads <= cores.max(2)) {
        group.bench_function(format!("{threads}/one"), |b| {
            b.iter_custom(|keys| steady.feed_threads(keys, threads, observe_each));
        });
        group.bench_function(format!("{threads}/batch-32"), |b| {
            b.iter_custom(|keys| {
                steady.feed_threads(keys, threads, |s, k| observe_batches(s, k, 32))
            });
        });
    }
}

/// On the machine's own clock: what reading it costs. Duplicates, so that the store stays as it is.
fn system_clock(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/64k/system clock");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let builder = Dedup::builder().window(Duration::from_secs(24 * 3600)).expected_keys(1 << 16);
    let store = builder.open(dir.path()).expect("open");
    let keys: Vec<Key> = (0..1 << 16).map(|index| key(9, index)).collect();
    observe_each(&store, &keys);
    store.settle();
    let rounds = |keys_asked: u64, work: &dyn Fn(&[Key])| {
        let start = Instant::now();
        let mut left = usize::try_from(keys_asked).expect("fits");
        while left > 0 {
            let len = left.min(keys.len());
            work(&keys[..len]);
            left -= len;
        }
        start.elapsed()
    };
    group.bench_function("duplicate/one", |b| {
        b.iter_custom(|asked| rounds(asked, &|keys| observe_each(&store, keys)));
    });
    group.bench_function("duplicate/batch-32", |b| {
        b.iter_custom(|asked| rounds(asked, &|keys| observe_batches(&store, keys, 32)));
    });
}

criterion_group!(
    benches,
    kinds,
    batch_sizes,
    sizes,
    key_lengths,
    durability,
    threads,
    system_clock
);
criterion_main!(benches);
