//! Bytes → changes of the files of a small valid store → open → operations. It may refuse, it may
//! forget (and has to say so), but it never panics and never calls a fresh key a duplicate.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use onceonly::{Builder, Claim, Dedup, ManualClock, Verdict, offline};
use tempfile::TempDir;

use crate::common::ops::Level;

const WINDOW: Duration = Duration::from_secs(60);
const STEPS: u32 = 6;
/// Enough for sealed files.
const KEYS_PER_STEP: u32 = 1_000;

/// A store that was closed, and the clock on which it was written.
struct Template {
    dir: TempDir,
    /// Has another link to the header, whose inode tells the store that it is in its own place.
    links: TempDir,
    clock: ManualClock,
    files: BTreeMap<String, Vec<u8>>,
}

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn builder(level: Level, clock: &ManualClock) -> Builder {
    let builder = Dedup::builder().window(WINDOW).slices(STEPS).expected_keys(100).shards(2);
    builder.durability(level.durability()).clock(clock.clone())
}

/// Has every kind of file: sealed and unsealed keys, tombstones, claims, several slices.
fn template(level: Level) -> &'static Template {
    static TEMPLATES: [OnceLock<Template>; 3] = [const { OnceLock::new() }; 3];
    TEMPLATES[level as usize].get_or_init(|| {
        let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
        let store = builder(level, &clock).open(dir.path()).unwrap();
        for step in 0..STEPS {
            let keys: Vec<_> = (0..KEYS_PER_STEP).map(|n| format!("key-{step}-{n}")).collect();
            assert_eq!(store.observe_batch(&keys).unwrap().len(), keys.len());
            for key in keys.iter().step_by(50) {
                assert!(store.forget(key).unwrap());
            }
            clock.advance(WINDOW / STEPS);
            store.settle();
        }
        assert_eq!(store.observe("the last one").unwrap(), Verdict::New);
        let guards = store.claim_batch(&["claimed-1", "claimed-2"]).unwrap();
        store.close().unwrap();
        drop(guards);
        let entries = fs::read_dir(dir.path()).unwrap().map(std::result::Result::unwrap);
        let files: BTreeMap<String, Vec<u8>> = entries
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        for kind in ["journal-", "run-", "filter-", "log-"] {
            assert!(files.keys().any(|name| name.starts_with(kind)), "no {kind} to be damaged");
        }
        let links = TempDir::new().unwrap();
        fs::hard_link(dir.path().join("STORE"), links.path().join("STORE")).unwrap();
        Template { dir, links, clock, files }
    })
}

/// Makes `dir` hold `files`; those that exist keep their inodes.
fn restore(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap().map(std::result::Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else if !files.contains_key(entry.file_name().to_str().unwrap_or("")) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    for (name, bytes) in files {
        let path = dir.join(name);
        if !fs::read(&path).is_ok_and(|there| there == *bytes) {
            fs::write(path, bytes).unwrap();
        }
    }
}

/// One change to one file.
fn change(u: &mut Unstructured<'_>, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let names: Vec<String> = files.keys().cloned().collect();
    let name = u.choose(&names)?.clone();
    let other = u.choose(&names)?.clone();
    let foreign = files[&other].clone();
    let bytes = files.get_mut(&name).expect("a file of the template");
    let at = u.int_in_range(0..=bytes.len())?;
    // The first page matters most, and files are long.
    let at = if u.ratio(1, 2)? { at % 128 } else { at }.min(bytes.len());
    match u.int_in_range(0..=6)? {
        0 | 1 => {
            let new = u.arbitrary::<&[u8]>()?;
            let count = new.len().min(bytes.len() - at);
            bytes[at..at + count].copy_from_slice(&new[..count]);
        }
        2 => {
            let new = u.arbitrary::<&[u8]>()?;
            bytes.splice(at..at, new.iter().copied());
        }
        3 => bytes.truncate(at),
        4 => {
            let to = (at + u.int_in_range(1..=8192)?).min(bytes.len());
            bytes[at..to].fill(0);
        }
        5 => *bytes = foreign,
        _ => {
            files.remove(&name);
        }
    }
    Ok(())
}

pub(crate) fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let in_place = u.arbitrary().unwrap_or(true);
    let level = *u.choose(&Level::ALL).unwrap_or(&Level::Process);
    let template = template(level);
    let mut files = template.files.clone();
    let mut rest = u.int_in_range(1..=4).unwrap_or(1);
    while rest > 0 && !files.is_empty() && change(&mut u, &mut files).is_ok() {
        rest -= 1;
    }
    // In the same place on the same boot the maps would be trusted; elsewhere all is verified.
    if in_place {
        let header = template.dir.path().join("STORE");
        if !header.exists() {
            fs::hard_link(template.links.path().join("STORE"), header).unwrap();
        }
        open_and_ask(level, template.dir.path(), &template.clock, &files);
    } else {
        let dir = TempDir::new().unwrap();
        let clock = ManualClock::new(start() + WINDOW);
        open_and_ask(level, dir.path(), &clock, &files);
    }
}

fn open_and_ask(level: Level, dir: &Path, clock: &ManualClock, files: &BTreeMap<String, Vec<u8>>) {
    restore(dir, files);
    let _ = (offline::verify(dir), offline::inspect(dir), offline::explain(dir, None, b"key-1-1"));
    let Ok(store) = builder(level, clock).open(dir) else { return };
    for number in 0..40 {
        let fresh = format!("fresh-{number}");
        assert!(!matches!(store.contains(&fresh), Ok(true)), "{fresh} is live");
        let claimed = store.scope("claims").claim(&fresh);
        assert!(!matches!(claimed, Ok(Claim::Duplicate { .. })), "{fresh} is a duplicate");
        let observed = store.observe(&fresh);
        assert!(matches!(observed, Ok(Verdict::New) | Err(_)), "{fresh}: {observed:?}");
        if observed.is_ok() {
            assert!(!matches!(store.contains(&fresh), Ok(false)), "{fresh} is lost at once");
        }
    }
    for name in ["claimed-1", "claimed-2"] {
        assert!(!matches!(store.claim(name), Ok(Claim::Duplicate { .. })), "{name} was not done");
    }
    for step in 0..STEPS {
        // Known keys may be lost with their files, but asking is safe, and forgetting works.
        let key = format!("key-{step}-1");
        let _ = (store.explain(&key), store.observe(&key));
        if store.forget(&key).is_ok() {
            assert!(!matches!(store.contains(&key), Ok(true)), "{key} was forgotten");
        }
    }
    let _ = (store.stats(), store.claims(), store.expired_claims(), store.guaranteed_since());
    store.settle();
    let _ = store.close();
    // What it made of the damage opens again.
    let again = builder(level, clock).open(dir);
    if let Ok(store) = again {
        assert!(!matches!(store.contains("never seen"), Ok(true)));
    }
}
