//! Time per key while slices rotate: the smaller the window, the more often. What a single call
//! pays at worst is shown by the `latency` command of `benches/peers`.

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use common::keys::Repeat;
use common::{Steady, group, observe_batches, observe_each};
use criterion::{Criterion, criterion_group, criterion_main};

fn rotation(criterion: &mut Criterion) {
    let mut group = group(criterion, "rotation");
    for (name, live) in [("32k", 1 << 15), ("256k", 1 << 18), ("2M", 1 << 21)] {
        for on_disk in [true, false] {
            let (place, mut steady) = match on_disk {
                true => ("disk", Steady::on_disk(live, Repeat::Window)),
                false => ("memory", Steady::in_memory(live)),
            };
            group.bench_function(format!("{place}/window-{name}/one"), |b| {
                b.iter_custom(|keys| steady.feed(keys, observe_each));
            });
            group.bench_function(format!("{place}/window-{name}/batch-32"), |b| {
                b.iter_custom(|keys| steady.feed(keys, |s, k| observe_batches(s, k, 32)));
            });
        }
    }
}

criterion_group!(benches, rotation);
criterion_main!(benches);
