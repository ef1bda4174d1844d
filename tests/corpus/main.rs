//! The seeds of the fuzz targets (`fuzz/corpus`), replayed: each was worth keeping because it reached
//! something that no other did, or because it failed once.

#[path = "../common/mod.rs"]
mod common;
#[path = "../power/crash.rs"]
#[allow(dead_code, reason = "the tests of power losses use the rest")]
mod crash;
mod decode;
mod faults;
#[path = "../power/judge.rs"]
mod judge;
mod open_bytes;
mod operations;
#[path = "../power/script.rs"]
mod script;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 16, "{} has no seeds", corpus.display());
    for seed in seeds {
        let bytes = fs::read(&seed).unwrap();
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&bytes)));
        assert!(ran.is_ok(), "{} fails", seed.display());
    }
}

#[test]
fn seeds_of_operations() {
    replay("operations", operations::run);
}

#[test]
fn seeds_of_damaged_files() {
    replay("open_bytes", open_bytes::run);
}

#[test]
fn seeds_of_faults() {
    replay("faults", faults::run);
}
