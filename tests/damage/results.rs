//! Files of results, damaged: a result is the right one, or an error, or told to be lost.

use std::fs;
use std::path::PathBuf;

use onceonly::{Claim, Dedup, Error, ManualClock};
use tempfile::TempDir;

use crate::common::{Rng, fast_dir, start};

const KEYS: usize = 200;
/// Of the longest results: they fill a segment of the journal, so that it is sealed.
const LONG: usize = 20;

struct Store {
    clock: ManualClock,
    dir: TempDir,
    /// The file of results, and what it holds.
    path: PathBuf,
    bytes: Vec<u8>,
    /// The files that an open changes.
    others: Vec<(PathBuf, Vec<u8>)>,
}

fn result_of(number: usize) -> Vec<u8> {
    format!("result of {number} ").bytes().cycle().take(number * 7 % 90).collect()
}

impl Store {
    fn new() -> Self {
        let (dir, clock) = (fast_dir(), ManualClock::new(start()));
        let store = open(dir.path(), &clock).unwrap();
        let commit = |key: String, result: Vec<u8>| match store.claim(key).unwrap() {
            Claim::Granted(guard) => guard.commit_with(result).unwrap(),
            other => panic!("{other:?}"),
        };
        (0..KEYS).for_each(|n| commit(format!("key-{n}"), result_of(n)));
        (0..LONG).for_each(|n| commit(format!("long-{n}"), vec![n as u8; 64 << 10]));
        store.settle();
        store.close().unwrap();
        drop(store);
        let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| read(entry.unwrap().path()));
        let is_values = |(path, _): &(PathBuf, Vec<u8>)| {
            path.file_name().unwrap().to_str().unwrap().starts_with("values-")
        };
        let (values, others): (Vec<_>, Vec<_>) = files.partition(is_values);
        let (path, bytes) = values.into_iter().next().expect("no file of results");
        Store { clock, dir, path, bytes, others }
    }

    /// Opens the store with its file of results changed by `harm`.
    fn check(&self, what: &str, harm: impl FnOnce(&mut Vec<u8>)) {
        let _ = fs::remove_dir_all(self.dir.path().join("set-aside"));
        for entry in fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap) {
            fs::remove_file(entry.path()).unwrap();
        }
        self.others.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        let mut bytes = self.bytes.clone();
        harm(&mut bytes);
        fs::write(&self.path, bytes).unwrap();
        let store = open(self.dir.path(), &self.clock).unwrap();
        let told = store.stats().recovery.damage.iter().any(|why| why.contains("results"));
        for n in 0..KEYS {
            let key = format!("key-{n}");
            assert!(store.contains(&key).unwrap(), "{what}: {key} is lost");
            match store.result(&key) {
                Ok(Some(found)) => assert!(found == result_of(n), "{what}: {key}: another result"),
                Ok(None) => assert!(told, "{what}: {key} has lost its result without a word"),
                Err(Error::Corrupt { file, .. }) => assert_eq!(file, self.path),
                Err(other) => panic!("{what}: {key}: {other}"),
            }
        }
        assert_eq!(store.result("fresh").unwrap_or_default(), None, "{what}");
        store.close().unwrap();
    }
}

fn open(dir: &std::path::Path, clock: &ManualClock) -> Result<Dedup, Error> {
    let builder = Dedup::builder().window(std::time::Duration::from_secs(60)).shards(2);
    builder.expected_keys(300).clock(clock.clone()).open(dir)
}

/// Every byte of the header, and many of the rest.
#[test]
fn one_flipped_bit_of_results_is_never_told() {
    let (subject, mut rng) = (Store::new(), Rng::new(5));
    let len = subject.bytes.len();
    let mut places: Vec<usize> = (0..100).collect();
    places.extend((0..150).map(|_| 4_096 + rng.below(20_000) as usize));
    // The entries and their fences are at the end.
    places.extend((0..200).map(|_| len - 1 - rng.below(13_000) as usize));
    places.extend((0..50).map(|_| rng.below(len as u64) as usize));
    for place in places {
        let bit = 1 << rng.below(8);
        subject.check(&format!("byte {place} ^ {bit}"), |bytes| bytes[place] ^= bit);
    }
}

#[test]
fn cut_zeroed_and_foreign_results_are_never_told() {
    let (subject, stranger, mut rng) = (Store::new(), Store::new(), Rng::new(6));
    let len = subject.bytes.len();
    for left in [0, 1, 95, 96, 4_095, 4_096, 10_000, len / 2, len - 4_096, len - 1] {
        subject.check(&format!("cut to {left}"), |bytes| bytes.truncate(left));
    }
    for _ in 0..60 {
        let pages = (len / 4_096) as u64;
        let (from, to) = (rng.below(pages) as usize * 4_096, rng.below(pages) as usize * 4_096);
        subject.check(&format!("zeros at {from}"), |bytes| bytes[from..from + 4_096].fill(0));
        subject.check(&format!("page at {from} also at {to}"), |bytes| {
            bytes.copy_within(from..from + 4_096, to);
        });
    }
    subject.check("of another store", |bytes| bytes.clone_from(&stranger.bytes));
    subject.check("longer", |bytes| bytes.resize(len + 4_096, 7));
}
