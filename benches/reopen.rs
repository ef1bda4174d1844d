//! Opening a store that was closed, up to its first answer.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::keys::{Key, key};
use common::{group, observe_batches};
use criterion::{Criterion, criterion_group, criterion_main};
use onceonly::Dedup;

fn open(dir: &Path, keys: u64) -> Dedup {
    let builder = Dedup::builder().window(Duration::from_secs(24 * 3600)).expected_keys(keys);
    builder.open(dir).expect("open")
}

/// The machine's clock, so all keys are in one slice; `benches/peers reopen` spreads them.
fn reopen(criterion: &mut Criterion) {
    let mut group = group(criterion, "reopen");
    group.sample_size(10).warm_up_time(Duration::from_millis(100));
    // Only opening is timed; closing, which is not, takes longer than that.
    group.measurement_time(Duration::from_millis(300));
    for (name, count) in [("10k", 10_000), ("1M", 1_000_000), ("5M", 5_000_000)] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let keys: Vec<Key> = (0..count).map(|index| key(11, index)).collect();
        let store = open(dir.path(), count);
        observe_batches(&store, &keys, 256);
        store.close().expect("close");
        group.bench_function(format!("clean/{name}"), |b| {
            b.iter_custom(|times| {
                let mut took = Duration::ZERO;
                for at in 0..times as usize {
                    let start = Instant::now();
                    let store = open(dir.path(), count);
                    assert!(store.contains(keys[at % keys.len()]).expect("contains"));
                    took += start.elapsed();
                    store.close().expect("close");
                }
                took
            });
        });
    }
}

criterion_group!(benches, reopen);
criterion_main!(benches);
