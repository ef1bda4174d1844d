use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::format::kept::{KEPT, Kept, LOST, TALLY};
use crate::storage::HeapStorage;
use crate::sync::AtomicBool;

const STORE: StoreId = [1; 16];

fn digest(n: u64) -> Digest {
    Digest::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n + 1)
}

fn value(digest: Digest, content: u64) -> Vec<u8> {
    let result = Some(vec![content as u8; (content % 300) as usize]);
    Kept { result, ..Kept::default() }.encode(digest)
}

type Model = BTreeMap<(Digest, u8), Vec<u8>>;

fn write(storage: &HeapStorage, file: u64, values: &Model) -> Arc<Values> {
    let bytes = values.values().map(|value| value.len() as u64).sum();
    let entries = values.len() as u64;
    let mut writer = ValuesWriter::create(storage, file, 3, entries, bytes).unwrap();
    for ((digest, tag), value) in values {
        writer.push(*digest, *tag, value).unwrap();
    }
    Arc::new(writer.finish(STORE).unwrap())
}

fn check(values: &Values, model: &Model, most: u64) {
    for n in 0..most {
        for tag in [KEPT, TALLY] {
            let found = values.find(digest(n), tag).unwrap();
            assert_eq!(found.as_ref(), model.get(&(digest(n), tag)), "{n} {tag}");
        }
    }
}

fn model(numbers: impl Iterator<Item = u64>, salt: u64) -> Model {
    let mut model = Model::new();
    for n in numbers {
        let bytes = if (n + salt).is_multiple_of(7) { vec![] } else { value(digest(n), n + salt) };
        model.insert((digest(n), KEPT), bytes);
        if n % 3 == 0 {
            model.insert((digest(n), TALLY), value(digest(n), n + 1));
        }
    }
    model
}

#[test]
fn holds_exactly_what_was_written() {
    for (file, len) in [1, 2, 95, 96, 97, 128, 3_000].into_iter().enumerate() {
        let storage = HeapStorage::default();
        let len = if cfg!(miri) { len.min(100) } else { len };
        let model = model((0..len).filter(|n| n % 2 == 0), 0);
        check(&write(&storage, file as u64, &model), &model, len);
        let opened = Values::open(&storage, STORE, file as u64).unwrap();
        assert!(opened.has_its_length());
        check(&opened, &model, len);
    }
}

/// Whatever byte is changed, no value comes back that was not written.
#[test]
fn a_flipped_byte_is_an_error_or_changes_nothing() {
    let storage = HeapStorage::default();
    let model = model(0..150, 1);
    write(&storage, 4, &model);
    let region = storage.open("values-0000000000000004", true).unwrap();
    let mut noticed = 0;
    let step = if cfg!(miri) { 997 } else { 13 };
    for at in (0..region.len()).step_by(step) {
        let mut byte = [0];
        region.read_bytes(at, &mut byte);
        region.write_bytes(at, &[byte[0] ^ 1]);
        match Values::open(&storage, STORE, 4) {
            Err(Error::Corrupt { .. }) => noticed += 1,
            Err(other) => panic!("{other}"),
            Ok(values) => {
                for (key, expected) in &model {
                    match values.find(key.0, key.1) {
                        Ok(found) => assert_eq!(found.as_ref(), Some(expected)),
                        Err(Error::Corrupt { .. }) => noticed += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
        region.write_bytes(at, &byte);
    }
    assert!(noticed > 100);
}

#[test]
fn a_merged_file_says_the_newest_of_each_value() {
    let storage = HeapStorage::default();
    let most = if cfg!(miri) { 60 } else { 1_000 };
    let parts: Vec<Model> =
        (0..3).map(|part| model((0..most).filter(|n| n % (part + 2) == 0), part)).collect();
    let files: Vec<_> = (0..).zip(&parts).map(|(file, part)| write(&storage, file, part)).collect();
    let mut expected = Model::new();
    parts.into_iter().for_each(|part| expected.extend(part));
    let stop = AtomicBool::new(false);
    let merged = merge(&storage, STORE, 8, &files, false, &stop).unwrap().unwrap();
    check(&merged, &expected, most);
    expected.retain(|_, value| !value.is_empty());
    let merged = merge(&storage, STORE, 9, &files, true, &stop).unwrap().unwrap();
    check(&merged, &expected, most);
    check(&Values::open(&storage, STORE, 9).unwrap(), &expected, most);
}

/// What is older does not take the place of a value that is damaged.
#[test]
fn a_damaged_value_stays_damaged_when_it_is_merged() {
    let storage = HeapStorage::default();
    let old = write(&storage, 1, &model(0..5, 1));
    let mut damaged = model(1..3, 2);
    damaged.insert((digest(2), KEPT), LOST.to_vec());
    let new = write(&storage, 2, &damaged);
    let stop = AtomicBool::new(false);
    let merged = merge(&storage, STORE, 3, &[old, new], true, &stop).unwrap().unwrap();
    assert!(matches!(merged.find(digest(2), KEPT), Err(Error::Corrupt { .. })));
    assert_eq!(merged.find(digest(1), KEPT).unwrap(), Some(value(digest(1), 3)));
    assert_eq!(merged.find(digest(4), KEPT).unwrap(), Some(value(digest(4), 5)));
}
