//! Claims beside `observe` on the same mix of keys: what "at least once" costs over "at most once".

#[allow(dead_code, reason = "each bench takes what it needs")]
mod common;

use common::keys::{Key, Repeat};
use common::{Steady, group, observe_batches, observe_each};
use criterion::{Criterion, criterion_group, criterion_main};
use onceonly::{Claim, Dedup};

const LIVE: u64 = 1_000_000;

fn claim_commit(store: &Dedup, keys: &[Key]) {
    for key in keys {
        if let Claim::Granted(guard) = store.claim(key).expect("claim") {
            guard.commit().expect("commit");
        }
    }
}

fn claim_abandon(store: &Dedup, keys: &[Key]) {
    for key in keys {
        if let Claim::Granted(guard) = store.claim(key).expect("claim") {
            guard.abandon();
        }
    }
}

fn process_once(store: &Dedup, keys: &[Key]) {
    for key in keys {
        let outcome = store.process_once(key, |_| Ok::<_, std::fmt::Error>(()));
        drop(outcome.expect("process"));
    }
}

fn claim_commit_batches(store: &Dedup, keys: &[Key], batch: usize) {
    let granted = |claim| match claim {
        Claim::Granted(guard) => Some(guard),
        _ => None,
    };
    for keys in keys.chunks(batch) {
        let claims = store.claim_batch(keys).expect("claim a batch");
        for committed in store.commit_batch(claims.into_iter().filter_map(granted)) {
            committed.expect("commit");
        }
    }
}

fn claims(criterion: &mut Criterion) {
    let mut group = group(criterion, "claims/1M/mixed");
    let mut steady = Steady::on_disk(LIVE, Repeat::Window);
    for (name, work) in [
        ("observe", observe_each as fn(&Dedup, &[Key])),
        ("claim-commit", claim_commit),
        ("process_once", process_once),
        ("claim-abandon", claim_abandon),
    ] {
        group.bench_function(name, |b| b.iter_custom(|keys| steady.feed(keys, work)));
    }
    for batch in [32, 256] {
        group.bench_function(format!("observe/batch-{batch}"), |b| {
            b.iter_custom(|keys| steady.feed(keys, |s, k| observe_batches(s, k, batch)));
        });
        group.bench_function(format!("claim-commit/batch-{batch}"), |b| {
            b.iter_custom(|keys| steady.feed(keys, |s, k| claim_commit_batches(s, k, batch)));
        });
    }
}

criterion_group!(benches, claims);
criterion_main!(benches);
