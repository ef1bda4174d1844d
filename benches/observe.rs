//! `observe`: new keys, duplicates and a mix of both; one at a time, in batches, by two threads.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::time::{Duration, Instant};

use common::keys::{Key, Repeat, key};
use common::{Steady, group, observe_batches, observe_each};
use criterion::{Criterion, criterion_group, criterion_main};
use onceonly::Dedup;

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

/// Time over keys: with two threads half of what a thread spends on a key.
fn threads(criterion: &mut Criterion) {
    let mut group = group(criterion, "observe/1M/threads");
    let mut steady = Steady::on_disk(LIVE, Repeat::EarlierChunks);
    for threads in [1, 2] {
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

criterion_group!(benches, kinds, batch_sizes, threads, system_clock);
criterion_main!(benches);
