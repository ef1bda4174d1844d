//! Editing history: what of it the chain shows, and when a head of before still holds.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::{inspect, repair, verify, verify_head};
use super::*;
use crate::claim::Claim;
use crate::config::Builder;
use crate::dedup::Dedup;
use crate::digest::Digest;
use crate::exact::run::{Run, RunWriter};
use crate::format::chain::Chain;
use crate::format::manifest::{Manifest, RunEntry};
use crate::format::names::Kind;
use crate::storage::DirStorage;
use crate::time::ManualClock;

const WINDOW: Duration = Duration::from_secs(3600);
const SLICES: u32 = 6;

fn builder(clock: &ManualClock) -> Builder {
    let builder = Dedup::builder()
        .window(WINDOW)
        .slices(SLICES)
        .expected_keys(20_000)
        .max_keys(400_000)
        .shards(2);
    builder.clock(clock.clone()).allow_any_filesystem(true)
}

/// Keys that no other call gives, until some of the newest slice are sealed.
fn fill(store: &Dedup, name: &str) {
    let sealed = |store: &Dedup| store.stats().slices.last().map_or(0, |slice| slice.sealed_keys);
    let before = sealed(store);
    for batch in 0..1_000 {
        let keys: Vec<String> = (0..300).map(|n| format!("{name}-{batch}-{n}")).collect();
        store.observe_batch(&keys).unwrap();
        store.settle();
        if sealed(store) > before {
            return;
        }
    }
    panic!("nothing is sealed");
}

/// A closed store with sealed files in several slices, results with them, and its head.
fn history(dir: &Path) -> String {
    let clock = ManualClock::new(SystemTime::now() - WINDOW / 2);
    let store = builder(&clock).open(dir).unwrap();
    for step in 0..3 {
        for number in 0..200 {
            let Claim::Granted(guard) = store.claim(format!("{step}-{number}")).unwrap() else {
                panic!("not granted")
            };
            guard.commit_with(format!("result {number}").as_bytes()).unwrap();
        }
        fill(&store, &format!("step-{step}"));
        fill(&store, &format!("again-{step}"));
        clock.advance(WINDOW / SLICES);
        store.settle();
    }
    store.close().unwrap();
    let head = inspect(dir).unwrap().chain_head.unwrap();
    let found = verify_head(dir, &head).unwrap();
    assert!(found.problems.is_empty(), "{found:?}");
    assert_eq!(found.chain.head.as_deref(), Some(&*head));
    let noted = found.chain.noted.unwrap();
    assert_eq!(
        (noted.keys_then, noted.keys_unchanged),
        (found.chain.keys_chained, noted.keys_then)
    );
    assert_eq!((found.chain.keys_before, noted.link), (0, found.chain.links));
    head
}

/// Changes the manifest as somebody would who knows the format.
fn edit(dir: &Path, change: impl FnOnce(&View, &mut Manifest)) {
    let view = View::load(dir).unwrap();
    let mut manifest = view.manifest.clone();
    change(&view, &mut manifest);
    fs::write(dir.join(names::MANIFEST), manifest.encode(manifest.stamp)).unwrap();
}

/// Writes other digests into a sealed file, with checksums that match.
fn rewrite(dir: &Path, run: &RunEntry, change: impl FnOnce(&mut Vec<Digest>)) -> Run {
    let view = View::load(dir).unwrap();
    let old = view.open_run(run.file).unwrap();
    let mut digests = Vec::new();
    (0..old.page_count()).for_each(|page| old.read_page(page, &mut digests).unwrap());
    change(&mut digests);
    digests.sort();
    let name = names::numbered(Kind::Run, run.file);
    fs::remove_file(dir.join(&name)).unwrap();
    let storage = DirStorage::own(dir, Duration::ZERO, true).unwrap();
    let mut out = RunWriter::create(&storage, run.file, run.slice, run.keys).unwrap();
    out.push_all(&digests).unwrap();
    out.finish(view.header.store).unwrap()
}

#[test]
fn an_edited_record_with_checksums_made_anew_is_found() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let run = View::load(dir.path()).unwrap().manifest.runs[1].clone();
    rewrite(dir.path(), &run, |_| {});
    assert!(verify(dir.path()).unwrap().problems.is_empty(), "the same records");
    rewrite(dir.path(), &run, |digests| digests[3].lo ^= 1);
    edit(dir.path(), |_, manifest| manifest.filters.clear());
    let problems = verify(dir.path()).unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].detail, EDITED);
    assert!(problems[0].file.ends_with(names::numbered(Kind::Run, run.file)));
}

#[test]
fn an_edited_result_with_checksums_made_anew_is_found() {
    use crate::exact::values::ValuesWriter;
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let view = View::load(dir.path()).unwrap();
    let named = view.manifest.values[0].clone();
    let old = view.open_values(named.file).unwrap();
    let mut entries = Vec::new();
    (0..old.page_count()).for_each(|page| entries.extend(old.read_page(page).unwrap()));
    let values: Vec<_> =
        entries.iter().map(|entry| (entry.key(), old.read(entry).unwrap())).collect();
    let name = names::numbered(Kind::Values, named.file);
    fs::remove_file(dir.path().join(&name)).unwrap();
    let storage = DirStorage::own(dir.path(), Duration::ZERO, true).unwrap();
    let bytes = values.iter().map(|(_, value)| value.len() as u64).sum();
    let mut out =
        ValuesWriter::create(&storage, named.file, named.slice, named.entries, bytes).unwrap();
    for (at, ((digest, tag), value)) in values.iter().enumerate() {
        // The result of another key is as long, and its checksum would tell: so nothing is kept any more.
        out.push(*digest, *tag, if at == 7 { &[] } else { value }).unwrap();
    }
    out.finish(view.header.store).unwrap();
    drop(storage);
    let problems = verify(dir.path()).unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].detail, EDITED);
}

#[test]
fn a_slice_that_was_removed_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let head = history(dir.path());
    edit(dir.path(), |_, manifest| manifest.runs.truncate(manifest.runs.len() - 1));
    let problems = verify(dir.path()).unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].detail.contains("last link"), "{problems:?}");
    // With a link that says that it expired it looks well, and the head of before tells what is missing.
    edit(dir.path(), |_, manifest| manifest.link(false));
    let found = verify_head(dir.path(), &head).unwrap();
    assert!(found.problems.is_empty(), "{found:?}");
    let noted = found.chain.noted.unwrap();
    assert_eq!((noted.sealed_since, noted.dropped_since), (0, 1));
    assert!(noted.keys_unchanged < noted.keys_then);
}

#[test]
fn slices_that_were_swapped_are_found() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let before = View::load(dir.path()).unwrap().manifest;
    let (first, last) = (before.runs[0].clone(), before.runs.last().unwrap().clone());
    assert_ne!(first.slice, last.slice);
    // Each file says that it is of the other's slice, and so does the manifest.
    let turned = |run: &RunEntry, slice| RunEntry { slice, ..run.clone() };
    rewrite(dir.path(), &turned(&first, last.slice), |_| {});
    rewrite(dir.path(), &turned(&last, first.slice), |_| {});
    edit(dir.path(), |_, manifest| {
        manifest.runs[0].slice = last.slice;
        manifest.runs.last_mut().unwrap().slice = first.slice;
    });
    let problems = verify(dir.path()).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.detail.contains("last link")), "{problems:?}");
    let edited = problems.iter().filter(|problem| problem.detail == EDITED);
    assert_eq!(edited.count(), 2, "{problems:?}");
}

#[test]
fn a_chain_that_was_made_anew_lacks_the_head_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let head = history(dir.path());
    let run = View::load(dir.path()).unwrap().manifest.runs[0].clone();
    let edited = rewrite(dir.path(), &run, |digests| digests[0].lo ^= 2).content;
    edit(dir.path(), |_, manifest| {
        manifest.runs[0].content = edited;
        // The next open makes new ones; these may lack the digest.
        manifest.filters.clear();
        manifest.chain = Chain::default();
        manifest.link(false);
    });
    assert!(verify(dir.path()).unwrap().problems.is_empty(), "nothing contradicts itself");
    let found = verify_head(dir.path(), &head).unwrap();
    assert_eq!((found.problems.len(), &found.chain.noted), (1, &None));
    assert!(found.problems[0].detail.contains(&head), "{found:?}");
}

#[test]
fn an_open_says_that_the_chain_was_broken() {
    let dir = tempfile::tempdir().unwrap();
    let head = history(dir.path());
    edit(dir.path(), |_, manifest| manifest.runs.truncate(manifest.runs.len() - 1));
    let store = builder(&ManualClock::new(SystemTime::now())).open(dir.path()).unwrap();
    let damage = store.stats().recovery.damage;
    assert!(damage.iter().any(|damage| damage.contains("chain")), "{damage:?}");
    store.close().unwrap();
    let noted = verify_head(dir.path(), &head).unwrap().chain.noted.unwrap();
    assert_eq!((noted.mended_since, noted.dropped_since), (1, 0));
}

#[test]
fn a_repair_says_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let head = history(dir.path());
    let run = View::load(dir.path()).unwrap().manifest.runs[0].clone();
    let path = dir.path().join(names::numbered(Kind::Run, run.file));
    let mut bytes = fs::read(&path).unwrap();
    bytes[5_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mended = repair(dir.path()).unwrap();
    assert!(mended.left.problems.is_empty(), "{mended:?}");
    let found = verify_head(dir.path(), &head).unwrap();
    let noted = found.chain.noted.unwrap();
    assert_eq!(noted.mended_since, 1);
    assert!(noted.keys_unchanged < noted.keys_then);
}

#[test]
fn a_head_holds_through_sealing_merging_growth_expiry_and_other_settings() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(SystemTime::now() - WINDOW * 4);
    let mut store = builder(&clock).open(dir.path()).unwrap();
    let mut heads: Vec<String> = Vec::new();
    for round in 0..16 {
        if round % 6 == 5 {
            store.close().unwrap();
            let (window, slices) = (WINDOW - Duration::from_secs(round), 3 + round as u32 / 6);
            store =
                builder(&clock).window(window).slices(slices).shards(4).open(dir.path()).unwrap();
        }
        fill(&store, &format!("round-{round}"));
        store.forget(format!("round-{round}-0-2")).unwrap();
        // A slice with enough parts to be merged among others.
        if !(1..5).contains(&round) {
            clock.advance(WINDOW / SLICES);
            store.contains("round-0-0-0").unwrap();
            store.settle();
        }
        heads.extend(inspect(dir.path()).unwrap().chain_head);
        heads.dedup();
    }
    store.close().unwrap();
    let mut last = NotedHead::default();
    for head in &heads {
        let found = verify_head(dir.path(), head).unwrap();
        assert!(found.problems.is_empty(), "{found:?}");
        let noted = found.chain.noted.unwrap();
        assert!(noted.link > last.link && noted.keys_unchanged <= noted.keys_then, "{noted:?}");
        last = noted;
    }
    assert!(heads.len() > 12, "{} heads", heads.len());
    let first = verify_head(dir.path(), &heads[0]).unwrap().chain.noted.unwrap();
    assert!(
        first.sealed_since > 8 && first.merged_since > 0 && first.dropped_since > 0,
        "{first:?}"
    );
    assert_eq!(first.keys_unchanged, 0, "all of that has expired");
}

#[test]
fn a_head_is_64_digits() {
    let head = "0123456789abcdef".repeat(4);
    assert_eq!(hex(&parse(&head).unwrap()), head);
    for wrong in ["", "12", &head[1..], &head.replace('4', "g"), &head.replace("01", "+1")] {
        assert!(matches!(parse(wrong), Err(Error::Config { field: "head", .. })), "{wrong}");
    }
}
