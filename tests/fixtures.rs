//! Stores that were written by releases of before: this one opens them, and every answer is right.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::fixture::{ALL, Fixture};
use onceonly::{Dedup, offline};
use tempfile::TempDir;

/// The version that this release writes.
fn current_version() -> u32 {
    let dir = TempDir::new().unwrap();
    let store = Dedup::builder().window(Duration::from_secs(1)).open(dir.path()).unwrap();
    store.close().unwrap();
    offline::inspect(dir.path()).unwrap().format_version
}

fn copy(from: &Path) -> TempDir {
    let to = common::fast_dir();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn stores_of_every_version_open_and_answer() {
    for version in 1..=current_version() {
        for fixture in &ALL {
            let kept = Fixture::directory(version).join(fixture.name);
            let names: Vec<_> = fs::read_dir(&kept)
                .unwrap_or_else(|e| panic!("{}: {e}", kept.display()))
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            for kind in ["STORE", "MANIFEST", "CLOCK", "journal-", "run-", "filter-", "log-"] {
                assert!(
                    names.iter().any(|name| name.starts_with(kind)),
                    "{}: no {kind}",
                    fixture.name
                );
            }
            let has_values = names.iter().any(|name| name.starts_with("values-"));
            assert_eq!(has_values, fixture.name == "results", "{}", fixture.name);
            let dir = copy(&kept);
            let found = offline::verify(dir.path()).unwrap();
            assert!(found.problems.is_empty(), "{}: {found:?}", fixture.name);
            assert_eq!(offline::inspect(dir.path()).unwrap().format_version, version);
            fixture.check(dir.path());
        }
    }
}

/// The description of the stores and the engine agree, whatever lies in the directory.
#[test]
fn stores_that_are_made_now_answer_the_same() {
    for fixture in &ALL {
        let dir = common::fast_dir();
        fixture.make(dir.path());
        fixture.check(dir.path());
    }
}
