//! State across runs, and the commands that look into it.

use crate::support::{Place, ran};

fn dedup(place: &Place, input: &str, more: &[&str]) -> String {
    let args = ["dedup", "--state", "seen", "--window", "1h"];
    place.pipe(&[&args[..], more].concat(), input).ok()
}

#[test]
fn a_state_remembers_across_runs() {
    let place = Place::new();
    assert_eq!(dedup(&place, "a\nb\na\n", &[]), "a\nb\n");
    assert_eq!(dedup(&place, "b\nc\na\n", &[]), "c\n");
    // The window need not be named again; it may be changed.
    place.pipe(&["dedup", "--state", "seen"], "c\nd\n").prints("d\n");
    place.pipe(&["dedup", "--state", "seen", "--window", "2h"], "d\ne\n").prints("e\n");
    place.pipe(&["dedup", "--state", "seen", "--duplicates"], "e\nf\n").prints("e\n");
    place
        .pipe(&["dedup", "--state", "seen", "--count"], "f\ng\n")
        .prints("lines 2 new 1 duplicate 1 too_old 0 missing 0\n");
    place.pipe(&["dedup", "--state", "seen"], "a\nb\nc\nd\ne\nf\ng\n").prints("");
}

#[test]
fn scopes_are_apart() {
    let place = Place::new();
    assert_eq!(dedup(&place, "a\n", &["--scope", "one"]), "a\n");
    assert_eq!(dedup(&place, "a\n", &["--scope", "two"]), "a\n");
    assert_eq!(dedup(&place, "a\n", &["--scope", ""]), "a\n");
    assert_eq!(dedup(&place, "a\n", &[]), "a\n");
    assert_eq!(dedup(&place, "a\n", &["--scope", "one"]), "");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.path("other")).unwrap();
    let place = place.with("other/file", "text");
    for args in [
        &["dedup", "--state", "other", "--window", "1h"][..],
        &["dedup", "--state", "other"],
        &["inspect", "other"],
        &["verify", "other"],
        &["explain", "other", "a"],
        &["forget", "other", "a"],
    ] {
        place.pipe(args, "a\n").fails(1, &["onceonly: other is not a store"]);
    }
    assert_eq!(std::fs::read_dir(place.path("other")).unwrap().count(), 1);
    for command in ["inspect", "verify"] {
        place.run(&[command, "absent"]).fails(1, &["absent"]);
    }
    assert!(!place.path("absent").exists());
}

#[test]
fn a_state_has_one_owner() {
    let place = Place::new();
    dedup(&place, "a\n", &[]);
    let mut owner = place.command(&["dedup", "--state", "seen"]).spawn().unwrap();
    let stdin = owner.stdin.take().unwrap();
    let pid = owner.id().to_string();
    wait_until_open(&place, &pid);
    place.pipe(&["dedup", "--state", "seen"], "b\n").fails(1, &["seen: ", &pid]);
    place.run(&["forget", "seen", "a"]).fails(1, &["seen: ", &pid]);
    // Looking is allowed.
    assert!(place.run(&["inspect", "seen"]).ok().contains(&pid));
    assert!(place.run(&["verify", "seen"]).ok().contains("problems"));
    assert!(place.run(&["explain", "seen", "a"]).ok().contains("live"));
    drop(stdin);
    assert_eq!(ran(owner).code, Some(0));
    place.run(&["forget", "seen", "a"]).prints("forgotten\n");
}

/// A run that was killed has the lock until it has ended; who starts the next one need not wait.
#[test]
fn a_run_waits_for_the_end_of_the_one_before() {
    let place = Place::new();
    dedup(&place, "a\n", &[]);
    let mut owner = place.command(&["dedup", "--state", "seen"]).spawn().unwrap();
    wait_until_open(&place, &owner.id().to_string());
    let ending = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        owner.kill().unwrap();
        owner.wait().unwrap();
    });
    place.pipe(&["dedup", "--state", "seen"], "a\nb\n").prints("b\n");
    ending.join().unwrap();
}

/// Looks again and again; a look takes the lock for an instant, which no owner minds.
pub(crate) fn wait_until_open(place: &Place, pid: &str) {
    for _ in 0..2000 {
        let found = place.run(&["inspect", "seen"]).stdout;
        if found.lines().any(|line| line.starts_with("open in process") && line.ends_with(pid)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the owner never opened the store");
}

#[test]
fn a_forgotten_key_is_new() {
    let place = Place::new();
    dedup(&place, "a\nb\n", &[]);
    dedup(&place, "a\n", &["--scope", "one"]);
    place.run(&["forget", "seen", "a"]).prints("forgotten\n");
    place.run(&["forget", "seen", "a"]).prints("not known\n");
    assert_eq!(dedup(&place, "a\nb\n", &[]), "a\n");
    place.run(&["forget", "seen", "a", "--scope", "one"]).prints("forgotten\n");
    assert_eq!(dedup(&place, "a\n", &["--scope", "one"]), "a\n");
}

#[test]
fn explain_tells_what_is_known_of_a_key() {
    let place = Place::new().with("x.csv", "a,b\n1,2\n");
    dedup(&place, "a\n", &[]);
    dedup(&place, "a,b\n3,4\n", &["--format", "csv", "--key", "a,b", "--scope", "pairs"]);
    let live = place.run(&["explain", "seen", "a"]).ok();
    assert!(live.contains("live until 20") && live.contains("seen in"), "{live}");
    let unknown = place.run(&["explain", "seen", "b"]).ok();
    assert!(unknown.contains("unknown"), "{unknown}");
    let unknown = place.run(&["explain", "seen", "a", "--scope", "one"]).ok();
    assert!(unknown.contains("unknown"), "{unknown}");
    let args = ["explain", "seen", "3", "4", "--fields", "--scope", "pairs"];
    assert!(place.run(&args).ok().contains("live until"));
    place.run(&["forget", "seen", "a"]).ok();
    let forgotten = place.run(&["explain", "seen", "a"]).ok();
    assert!(!forgotten.contains("live until"), "{forgotten}");
}

/// A store that traces is one of a service: the command tells what it kept.
#[test]
fn explain_prints_the_trace_of_a_message() {
    let place = Place::new();
    let builder = onceonly::Dedup::builder().window(std::time::Duration::from_secs(3600));
    let store = builder.trace(true).open(place.path("seen")).unwrap();
    let noted = onceonly::ClaimOptions::new().note("offset 12");
    let onceonly::Claim::Granted(guard) = store.claim_with("a", noted).unwrap() else { panic!() };
    let token = guard.token().to_string();
    guard.commit_with("receipt").unwrap();
    let again = store.observe_batch(&["a", "a"]).unwrap();
    assert_eq!(again, [onceonly::Verdict::Duplicate; 2]);
    store.close().unwrap();
    let told = place.run(&["explain", "seen", "a"]).ok();
    for (name, value) in [
        ("first claimed", "20"),
        ("by claim", &*token),
        ("its note", "offset 12"),
        ("duplicates refused", "2"),
    ] {
        let line = told.lines().find(|line| line.starts_with(name)).expect(name);
        assert!(line[name.len()..].trim().starts_with(value), "{line}");
    }
}

#[test]
fn inspect_and_verify_describe_a_store() {
    let place = Place::new();
    dedup(&place, "a\nb\nc\n", &[]);
    let found = place.run(&["inspect", "seen"]).ok();
    for word in [
        "1h in 7 slices",
        "xxh3-128",
        "keys live",
        "guaranteed since",
        "open in process",
        "last clean close",
        "false positives",
    ] {
        assert!(found.contains(word), "no `{word}` in {found}");
    }
    assert!(found.lines().any(|line| line.starts_with("keys live") && line.ends_with(" 3")));
    let found = place.run(&["verify", "seen"]).ok();
    assert!(found.lines().any(|line| line.starts_with("problems") && line.ends_with(" 0")));
}

#[test]
fn verify_finds_damage() {
    let place = Place::new();
    let keys: String = (0..1000).map(|n| format!("{n}\n")).collect();
    dedup(&place, &keys, &[]);
    let mut largest: Vec<_> = std::fs::read_dir(place.path("seen"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.metadata().unwrap().is_file())
        .collect();
    largest.sort_by_key(|entry| entry.metadata().unwrap().len());
    let mut damaged = 0;
    for entry in largest {
        let path = entry.path();
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        for byte in bad.iter_mut().take(64) {
            *byte ^= 0xff;
        }
        std::fs::write(&path, bad).unwrap();
        let ran = place.run(&["verify", "seen"]);
        if ran.code == Some(1) {
            damaged += 1;
            assert!(ran.stderr.starts_with("onceonly: ") && ran.stderr.contains("seen"), "{ran:?}");
        }
        std::fs::write(&path, good).unwrap();
    }
    assert!(damaged > 0);
    assert!(place.run(&["verify", "seen"]).ok().contains("problems"));
}

#[test]
fn verify_repairs_only_when_asked() {
    let place = Place::new();
    dedup(&place, "a\nb\n", &[]);
    std::fs::write(place.path("seen/CLOCK"), "nonsense").unwrap();
    std::fs::write(place.path("seen/notes"), "mine").unwrap();
    place.run(&["verify", "seen"]).fails(1, &["seen", "damaged"]);
    place.run(&["verify", "seen"]).fails(1, &["seen", "damaged"]);
    let told = place.run(&["verify", "--repair", "seen"]).ok();
    let row = |name: &str, value: &str| {
        told.lines().any(|line| line.starts_with(name) && line.trim_end().ends_with(value))
    };
    assert!(row("set aside", "CLOCK") && row("set aside", "notes"), "{told}");
    assert!(row("problems left", " 0"), "{told}");
    assert!(place.path("seen/set-aside/notes").exists());
    place.run(&["verify", "seen"]).ok();
    assert_eq!(dedup(&place, "b\nc\n", &[]), "c\n");
}

#[test]
fn verify_does_not_repair_a_store_that_is_open() {
    let place = Place::new();
    dedup(&place, "a\n", &[]);
    let mut owner = place.command(&["dedup", "--state", "seen"]).spawn().unwrap();
    let stdin = owner.stdin.take().unwrap();
    let pid = owner.id().to_string();
    wait_until_open(&place, &pid);
    place.run(&["verify", "--repair", "seen"]).fails(1, &["seen: ", &pid]);
    drop(stdin);
    assert_eq!(ran(owner).code, Some(0));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let place = Place::new().with("file", "");
    let args = ["dedup", "--state", "file", "--window", "1h"];
    place.pipe(&args, "a\n").fails(1, &["onceonly: ", " file"]);
    let args = ["dedup", "--state", "/proc/onceonly", "--window", "1h"];
    place.pipe(&args, "a\n").fails(1, &["/proc/onceonly"]);
}

/// The value of a line that a command printed.
fn line<'a>(printed: &'a str, name: &str) -> &'a str {
    let line = printed.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {printed}")).trim()
}

#[test]
fn a_noted_head_tells_whether_history_was_edited() {
    let place = Place::new();
    let many: String = (0..60_000).map(|n| format!("{n}\n")).collect();
    dedup(&place, &many, &[]);
    let head = line(&place.run(&["inspect", "seen"]).ok(), "head of the chain").to_owned();
    dedup(&place, &many.replace('\n', "x\n"), &[]);
    let told = place.run(&["verify", "--head", &head, "seen"]).ok();
    assert!(line(&told, "noted head").starts_with("on the chain, link "), "{told}");
    assert_ne!(line(&told, "head"), head);
    let other = head.chars().rev().collect::<String>();
    place.run(&["verify", "--head", &other, "seen"]).fails(1, &["seen", "damaged"]);
    place.run(&["verify", "--head", "12", "seen"]).fails(2, &["12", "64 hexadecimal digits"]);
}
