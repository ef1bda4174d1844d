//! Opening: what is refused, with which error, and who owns a store.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{fast_dir, start, without_deadlock};
use onceonly::{Builder, Claim, Dedup, DigestKind, Error, ManualClock, Verdict};
use tempfile::TempDir;

fn builder() -> Builder {
    Dedup::builder().window(Duration::from_secs(60)).expected_keys(1_000)
}

fn is_new(store: &Dedup, key: impl AsRef<[u8]>) -> bool {
    store.observe(key).unwrap() == Verdict::New
}

/// Each absurd setting is an error that names its setter, from `open`, `in_memory` and `plan`, and
/// nothing is written for it.
#[test]
fn absurd_settings_are_config_errors_that_name_the_field() {
    let cases = [
        (Dedup::builder(), "window"),
        (builder().window(Duration::ZERO), "window"),
        (builder().window(Duration::MAX), "window"),
        (builder().slices(0), "slices"),
        (builder().slices(64), "slices"),
        (builder().expected_keys(0), "expected_keys"),
        (builder().expected_keys(u64::MAX), "expected_keys"),
        (builder().false_positive_rate(0.0), "false_positive_rate"),
        (builder().false_positive_rate(-0.1), "false_positive_rate"),
        (builder().false_positive_rate(1.0), "false_positive_rate"),
        (builder().false_positive_rate(f64::NAN), "false_positive_rate"),
        (builder().max_keys(0), "max_keys"),
        (builder().lease(Duration::ZERO), "lease"),
        (builder().lease(Duration::MAX), "lease"),
        (builder().shards(0), "shards"),
        (builder().shards(usize::MAX), "shards"),
    ];
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("never");
    for (builder, expected) in cases {
        let errors = [
            builder.clone().open(&path).unwrap_err(),
            builder.clone().in_memory().unwrap_err(),
            builder.plan().unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(!error.is_transient());
            assert!(matches!(error, Error::Config { field, .. } if field == expected), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }
    assert!(!path.exists());
}

/// A size that is valid and that no machine has is an error of the system; nothing is left behind,
/// and the disk is not filled to find it out.
#[test]
fn a_size_that_no_machine_has_is_an_io_error() {
    let dir = fast_dir();
    let absurd = || builder().expected_keys(1 << 40);
    for error in [absurd().open(dir.path()).unwrap_err(), absurd().in_memory().unwrap_err()] {
        let Error::Io { source, .. } = &error else { panic!("{error:?}") };
        use std::io::ErrorKind::{OutOfMemory, StorageFull};
        assert!(matches!(source.kind(), OutOfMemory | StorageFull), "{error}");
        assert!(error.is_transient());
    }
    let bytes = |entry: fs::DirEntry| entry.metadata().unwrap().len();
    let left: u64 = fs::read_dir(dir.path()).unwrap().map(|entry| bytes(entry.unwrap())).sum();
    assert!(left < 1 << 20, "{left} bytes are left behind");
    let store = builder().open(dir.path()).unwrap();
    assert!(is_new(&store, "a") && !is_new(&store, "a"));
}

/// Settings at the ends of their ranges work.
#[test]
fn settings_at_the_ends_of_their_ranges_work() {
    let cases = [
        builder().window(Duration::from_nanos(63)).slices(63),
        builder().window(Duration::from_secs(86_400 * 365 * 50)),
        builder().expected_keys(1),
        builder().false_positive_rate(0.5),
        builder().false_positive_rate(0.000_001),
        builder().max_keys(1),
        builder().lease(Duration::from_nanos(1)),
        builder().shards(64),
        builder().max_event_lead(Duration::MAX),
        builder().lock_wait(Duration::MAX),
    ];
    for builder in cases {
        let store = builder.clock(ManualClock::new(start())).in_memory().unwrap();
        assert!(is_new(&store, "a") && !is_new(&store, "a"));
    }
}

/// A directory with other things in it is never taken over, and nothing in it is touched.
#[test]
fn a_directory_that_is_not_a_store_is_refused_untouched() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let error = builder().open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::NotAStore { dir: told } if told == dir.path()), "{error}");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["notes.txt"]);
    assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "mine");
}

/// An empty or missing directory becomes a store, its missing parents included.
#[test]
fn an_empty_or_missing_directory_becomes_a_store() {
    let dir = TempDir::new().unwrap();
    let store = builder().open(dir.path()).unwrap();
    assert!(store.stats().recovery.created && is_new(&store, "a"));
    drop(store);
    assert!(!builder().open(dir.path()).unwrap().stats().recovery.created);
    let deep = TempDir::new().unwrap();
    assert!(is_new(&builder().open(deep.path().join("a/b/c")).unwrap(), "a"));
}

/// A process that dies while it creates a store leaves a directory that is none yet: looking at it
/// says so, and opening it ends the creation.
#[test]
fn a_store_that_was_not_created_to_the_end_is_told_from_none() {
    let whole = TempDir::new().unwrap();
    builder().open(whole.path()).unwrap().close().unwrap();
    let dir = TempDir::new().unwrap();
    let told = || {
        let errors =
            [Builder::stored(dir.path()).err(), onceonly::offline::inspect(dir.path()).err()];
        errors.map(|error| match error.expect("nothing is there yet") {
            Error::NotAStore { dir: told } if told == dir.path() => "none",
            Error::Unfinished { dir: told } if told == dir.path() => "unfinished",
            other => panic!("{other}"),
        })
    };
    assert_eq!(told(), ["none"; 2]);
    for file in ["LOCK", "STORE.tmp", "STORE", "CLOCK"] {
        let name = file.strip_suffix(".tmp").unwrap_or(file);
        fs::copy(whole.path().join(name), dir.path().join(file)).unwrap();
        assert_eq!(told(), ["unfinished"; 2], "after {file}");
    }
    let store = builder().open(dir.path()).unwrap();
    assert!(store.stats().recovery.created && is_new(&store, "a"));
    drop(store);
    assert!(Builder::stored(dir.path()).is_ok());
}

/// Paths that cannot hold a store are I/O errors with the path and the cause.
#[test]
fn a_path_that_cannot_hold_a_store_is_an_io_error() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let mut paths = vec![file.clone(), file.join("below")];
    if cfg!(target_os = "linux") {
        // Nobody can create directories there, not even root.
        paths.push("/proc/onceonly-test".into());
    }
    for path in paths {
        let error = builder().open(&path).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Io { .. } | Error::NotAStore { .. }), "{text}");
        assert!(text.contains(path.to_str().unwrap()), "{text} does not name {}", path.display());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");
}

/// What is fixed when a store is created cannot change; the error names it, and the store is as
/// it was.
#[test]
fn another_digest_secret_or_time_mode_is_a_mismatch() {
    let dir = TempDir::new().unwrap();
    let original = || builder().digest(DigestKind::Xxh3).secret([7; 32]);
    assert!(is_new(&original().open(dir.path()).unwrap(), "a"));
    let cases = [
        (original().digest(DigestKind::SipHash13), "digest"),
        (original().secret([8; 32]), "secret"),
        (original().event_time(true), "event_time"),
    ];
    for (builder, expected) in cases {
        let error = builder.open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Mismatch { field, .. } if field == expected), "{error}");
        assert!(!error.to_string().contains("7, 7"), "the secret is not told: {error}");
    }
    // Not naming them takes the store's own.
    for builder in [original(), builder()] {
        assert!(!is_new(&builder.open(dir.path()).unwrap(), "a"));
    }
}

/// One owner: a second handle in this process is refused, with this process's id.
#[test]
fn a_second_handle_is_refused_with_the_pid_of_the_first() {
    let dir = TempDir::new().unwrap();
    let store = builder().open(dir.path()).unwrap();
    let error = builder().open(dir.path()).unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(error, Error::Locked { pid } if pid == std::process::id()), "{error}");
    assert!(is_new(&store, "a"), "the owner is not disturbed");
    drop(store);
    assert!(!is_new(&builder().open(dir.path()).unwrap(), "a"));
}

const CHILD_DIR: &str = "ONCEONLY_TEST_LOCK_DIR";

/// Not a test by itself: the second process of the tests below. It opens the store, says so, and
/// closes it when its input ends.
#[test]
fn child_that_owns_a_store() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = builder().open(dir).unwrap();
    assert!(is_new(&store, "child"));
    std::io::stdout().write_all(b"\nopen\n").unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    store.close().unwrap();
}

/// Another process that has the store open.
struct Owner {
    child: Child,
    /// Read to the end only by the system: a closed pipe would end the child early.
    _output: Lines<BufReader<ChildStdout>>,
}

fn spawn_owner(dir: &Path) -> Owner {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_owns_a_store", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "open"), "the child did not open");
    Owner { child, _output: lines }
}

/// One owner: another process is refused, with the pid of the owner; when the owner closes or is
/// killed the store is free.
#[test]
fn another_process_is_refused_until_the_owner_is_gone() {
    for kill in [false, true] {
        let dir = TempDir::new().unwrap();
        let Owner { child: mut owner, _output } = spawn_owner(dir.path());
        let error = builder().open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Locked { pid } if pid == owner.id()), "{error}");
        if kill {
            owner.kill().unwrap();
        } else {
            drop(owner.stdin.take());
        }
        owner.wait().unwrap();
        let store = builder().open(dir.path()).unwrap();
        assert_eq!(store.stats().recovery.clean_close, !kill);
        assert!(!is_new(&store, "child"), "acknowledged by the former owner");
    }
}

/// A closed store is free at once, also while other threads start processes: a process that is just
/// being started has the files of its parent, and with them the lock, for a moment.
#[test]
fn a_closed_store_is_free_while_other_threads_start_processes() {
    without_deadlock(|| {
        let dir = fast_dir();
        let over = Arc::new(AtomicBool::new(false));
        let starting = {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // What it runs does not matter, nor whether it is found.
                    let _ = Command::new("true").status();
                }
            })
        };
        let locked = (0..1_000).find_map(|_| match builder().open(dir.path()) {
            Ok(store) => store.close().err(),
            Err(error) => Some(error),
        });
        over.store(true, Ordering::Relaxed);
        starting.join().unwrap();
        assert!(locked.is_none(), "{locked:?}");
    });
}

/// Looking at a store is no owning it: whoever opens it meanwhile is not refused, and is not misled
/// about the owner.
#[test]
fn a_look_does_not_refuse_an_owner() {
    let dir = fast_dir();
    builder().open(dir.path()).unwrap().close().unwrap();
    // What `inspect` does to find out whether there is an owner, for longer than it takes.
    let looks = fs::File::open(dir.path().join("LOCK")).unwrap();
    looks.lock_shared().unwrap();
    let looked = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(looks);
    });
    let store = builder().open(dir.path()).unwrap();
    looked.join().unwrap();
    assert!(is_new(&store, "a"));
    let told = onceonly::offline::inspect(dir.path()).unwrap();
    assert_eq!(told.owner_pid, Some(std::process::id()));
    store.close().unwrap();
    assert_eq!(onceonly::offline::inspect(dir.path()).unwrap().owner_pid, None);
}

/// A rolling update: the new owner waits until the old one has closed, and then has its keys.
#[test]
fn lock_wait_waits_for_the_previous_owner() {
    without_deadlock(|| {
        let dir = TempDir::new().unwrap();
        let old = builder().open(dir.path()).unwrap();
        let path = dir.path().to_owned();
        let waiter = thread::spawn(move || {
            builder().lock_wait(Duration::from_secs(100)).open(path).unwrap()
        });
        assert!(is_new(&old, "a"));
        old.close().unwrap();
        let new = waiter.join().unwrap();
        assert!(!is_new(&new, "a"));
        assert!(matches!(old.observe("a"), Err(Error::Closed)));
        let waited = builder().lock_wait(Duration::from_millis(30)).open(dir.path());
        assert!(matches!(waited, Err(Error::Locked { .. })), "it waits no longer than told");
    });
}

/// After `close` every call is `Closed`, on every handle; closing again does nothing.
#[test]
fn every_call_after_close_is_closed() {
    let dir = TempDir::new().unwrap();
    for store in [builder().open(dir.path()).unwrap(), builder().in_memory().unwrap()] {
        let (clone, scope) = (store.clone(), store.scope("tenant"));
        assert!(is_new(&store, "a"));
        let Claim::Granted(guard) = store.claim("c").unwrap() else { panic!("not granted") };
        let Claim::Granted(other) = store.claim("d").unwrap() else { panic!("not granted") };
        store.close().unwrap();
        clone.close().unwrap();
        store.close().unwrap();
        for scope in [&*store, &*clone, &scope] {
            assert!(matches!(scope.observe("a"), Err(Error::Closed)));
            assert!(matches!(scope.contains("a"), Err(Error::Closed)));
            assert!(matches!(scope.contains_batch(&["a"]), Err(Error::Closed)));
            assert!(matches!(scope.forget("a"), Err(Error::Closed)));
            assert!(matches!(scope.claim("b"), Err(Error::Closed)));
            assert!(matches!(scope.claim_batch(&["b"]), Err(Error::Closed)));
            assert!(matches!(scope.explain("a"), Err(Error::Closed)));
            let failed = scope.observe_batch(&["a", "b"]).unwrap_err();
            assert!(matches!(failed.error(), Error::Closed));
            assert_eq!(failed.into_parts().0, [None, None]);
            scope.prefetch("a");
        }
        assert!(matches!(store.claims(), Err(Error::Closed)));
        assert!(matches!(store.expired_claims(), Err(Error::Closed)));
        assert!(matches!(store.sync(), Err(Error::Closed)));
        assert!(matches!(guard.renew(), Err(Error::Closed)));
        assert!(matches!(guard.commit().unwrap_err().error(), Error::Closed));
        other.abandon();
        let _ = (store.stats(), store.guaranteed_since());
    }
    let store = builder().open(dir.path()).unwrap();
    assert!(!is_new(&store, "a"), "a closed store opens again while old handles live");
    assert!(!store.contains("c").unwrap());
}

/// Dropping the last handle closes; scopes are handles, guards are not.
#[test]
fn dropping_the_last_handle_closes_although_a_guard_lives() {
    let dir = TempDir::new().unwrap();
    let store = builder().open(dir.path()).unwrap();
    let scope = store.scope("tenant");
    let Claim::Granted(guard) = store.claim("a").unwrap() else { panic!("not granted") };
    drop(store);
    assert_eq!(scope.observe("b").unwrap(), Verdict::New);
    assert!(matches!(builder().open(dir.path()), Err(Error::Locked { .. })));
    drop(scope);
    let store = builder().open(dir.path()).unwrap();
    assert!(store.stats().recovery.clean_close);
    assert!(matches!(guard.commit().unwrap_err().error(), Error::Closed));
    assert!(is_new(&store, "a"), "its claim ended with its store, uncommitted");
}

/// Promise 9: keys of any length are valid: empty, and of many megabytes.
#[test]
fn empty_and_huge_keys_are_valid() {
    for kind in [DigestKind::Xxh3, DigestKind::SipHash13] {
        let store = builder().digest(kind).in_memory().unwrap();
        let mut huge = vec![b'x'; 16 << 20];
        assert!(is_new(&store, ""));
        assert!(is_new(&store, &huge));
        *huge.last_mut().unwrap() = b'y';
        assert!(is_new(&store, &huge));
        huge.pop();
        assert!(is_new(&store, &huge));
        assert!(!is_new(&store, "") && !is_new(&store, &huge));
        assert!(is_new(&store, b"\0") && is_new(&store, b"\0\0"));
    }
}

/// What the simulated disk says it is, the storage below a real directory says by `statfs`; the kinds
/// are listed, and tested, in `src/storage/place.rs`.
#[test]
fn network_and_copy_on_write_file_systems_are_refused_unless_allowed() {
    for (number, name) in [(0x6969, "NFS"), (0x9123_683e, "btrfs"), (0x6573_5546, "FUSE")] {
        let disk = onceonly::sim::SimDisk::new();
        disk.set_filesystem(number);
        let calls = disk.calls();
        let error = builder().open_simulated(&disk).unwrap_err();
        assert!(matches!(error, Error::Filesystem { name: found, .. } if found == name), "{error}");
        assert!(!error.is_transient());
        assert_eq!(disk.calls(), calls, "nothing was touched");
        let store = builder().allow_any_filesystem(true).open_simulated(&disk).unwrap();
        assert!(is_new(&store, "a"));
    }
    let disk = onceonly::sim::SimDisk::new();
    disk.set_filesystem(0xef53);
    assert!(is_new(&builder().open_simulated(&disk).unwrap(), "a"), "ext4");
}
