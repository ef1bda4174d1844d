//! Keys from one store to another.

use std::fs::File;
use std::process::Stdio;

use crate::support::{Place, Ran, ran};

fn dedup(place: &Place, state: &str, input: &str) -> String {
    place.pipe(&["dedup", "--state", state, "--window", "1h"], input).ok()
}

/// Exports `from` to the file `keys`.
fn export(place: &Place, from: &str) {
    let mut command = place.command(&["export", from]);
    command.stdout(Stdio::from(File::create(place.path("keys")).unwrap()));
    assert_eq!(ran(command.spawn().unwrap()).code, Some(0));
}

fn import(place: &Place, args: &[&str]) -> Ran {
    let keys = std::fs::read(place.path("keys")).unwrap();
    place.pipe(&[&["import"], args].concat(), keys)
}

#[test]
fn keys_move_to_a_new_store_and_to_one_that_has_others() {
    let place = Place::new();
    dedup(&place, "one", "a\nb\nc\n");
    export(&place, "one");
    import(&place, &["two"]).fails(2, &["two", "--secret-from"]);
    assert!(!place.path("two").exists());
    let told = import(&place, &["two", "--secret-from", "one"]).ok();
    assert!(told.starts_with("keys 3 known 0 expired 0 values 0 claims 0\nguaranteed since "));
    assert_eq!(dedup(&place, "two", "a\nb\nc\nd\n"), "d\n");
    assert_eq!(dedup(&place, "one", "d\ne\n"), "d\ne\n");
    // Back again, and once more.
    export(&place, "two");
    assert!(import(&place, &["one"]).ok().starts_with("keys 0 known 4 "));
    export(&place, "one");
    assert!(import(&place, &["two"]).ok().starts_with("keys 1 known 4 "));
    assert_eq!(dedup(&place, "two", "e\nf\n"), "f\n");
    place.run(&["verify", "two"]).ok();
}

#[test]
fn a_store_that_is_open_is_refused_by_its_process() {
    let place = Place::new();
    dedup(&place, "seen", "a\n");
    export(&place, "seen");
    let mut owner = place.command(&["dedup", "--state", "seen"]).spawn().unwrap();
    let stdin = owner.stdin.take().unwrap();
    let pid = owner.id().to_string();
    super::stores::wait_until_open(&place, &pid);
    place.run(&["export", "seen"]).fails(1, &["seen: ", &pid]);
    import(&place, &["seen"]).fails(1, &["seen: ", &pid]);
    drop(stdin);
    assert_eq!(ran(owner).code, Some(0));
}

#[test]
fn what_is_not_an_export_is_refused() {
    let place = Place::new();
    dedup(&place, "one", "a\nb\n");
    dedup(&place, "other", "a\n");
    export(&place, "one");
    import(&place, &["other"]).fails(1, &["other", "secret"]);
    place.pipe(&["import", "one"], "short").fails(1, &["stdin"]);
    place.pipe(&["import", "one"], [b'x'; 500]).fails(1, &["not what an export has written"]);
    let mut keys = std::fs::read(place.path("keys")).unwrap();
    let cut = keys[..keys.len() - 5].to_vec();
    place.pipe(&["import", "one"], cut).fails(1, &["block 2", "ends before its end"]);
    keys[150] ^= 1;
    place.pipe(&["import", "one"], keys).fails(1, &["block 1, at byte 128", "checksum"]);
    place.run(&["export", "nothing"]).fails(1, &["nothing"]);
}
