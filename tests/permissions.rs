//! Directories and files that the process may not read or write: a typed error that names them, and
//! nothing is lost. Permissions do not bind root, so the test runs itself as an ordinary user.
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use onceonly::{Builder, Dedup, Error, Verdict, offline};
use tempfile::TempDir;

const DIR: &str = "ONCEONLY_PERMISSIONS_DIR";
/// "nobody", wherever there are users at all.
const NOBODY: u32 = 65_534;

fn builder() -> Builder {
    Dedup::builder().window(Duration::from_secs(3600))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Not a test by itself: what the test below runs as an ordinary user.
#[test]
fn child_without_rights() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = PathBuf::from(dir);
    a_directory_that_cannot_be_made(&dir);
    let store = dir.join("store");
    let opened = builder().open(&store).unwrap();
    assert_eq!(opened.observe("a").unwrap(), Verdict::New);
    opened.close().unwrap();
    for mode in [0o000, 0o300, 0o400, 0o500, 0o600] {
        refused(&store, &store, mode);
    }
    for file in ["LOCK", "STORE", "MANIFEST", "CLOCK"] {
        refused(&store, &store.join(file), 0o000);
    }
    for file in ["LOCK", "CLOCK"] {
        refused(&store, &store.join(file), 0o400);
    }
    // Looking needs no right to write.
    set_mode(&store, 0o500);
    assert_eq!(offline::inspect(&store).unwrap().keys_live, 1);
    set_mode(&store, 0o300);
    assert!(matches!(offline::verify(&store), Err(Error::Io { .. })));
    set_mode(&store, 0o000);
    assert!(matches!(offline::inspect(&store), Err(Error::Io { .. })));
    set_mode(&store, 0o700);
    fs::write(dir.join("done"), "").unwrap();
}

fn a_directory_that_cannot_be_made(dir: &Path) {
    let closed = dir.join("closed");
    fs::create_dir(&closed).unwrap();
    set_mode(&closed, 0o500);
    let error = builder().open(closed.join("store")).unwrap_err();
    assert_denied(&error, &closed);
    assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
}

/// With `path` in `mode` the store is refused with an error that names a file of it; with the mode
/// that it had it opens, and has all its keys.
fn refused(store: &Path, path: &Path, mode: u32) {
    let before = path.metadata().unwrap().permissions().mode();
    set_mode(path, mode);
    let opened = builder().open(store);
    set_mode(path, before);
    match opened {
        Ok(_) => panic!("{} in mode {mode:o} is no obstacle", path.display()),
        Err(error) => assert_denied(&error, store),
    }
    let opened = builder().open(store).unwrap();
    assert_eq!(opened.stats().recovery.damage, Vec::<String>::new(), "{mode:o}");
    assert_eq!(opened.observe("a").unwrap(), Verdict::Duplicate);
    opened.close().unwrap();
}

fn assert_denied(error: &Error, below: &Path) {
    let text = error.to_string();
    let Error::Io { path, source, .. } = error else { panic!("{text}") };
    assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied, "{text}");
    assert!(path.starts_with(below) && text.contains(path.to_str().unwrap()), "{text}");
    assert!(!error.is_transient());
}

/// An unreadable or read-only directory or file is an I/O error that names it; once the rights are
/// back, every key is there.
#[test]
fn what_may_not_be_read_or_written_is_an_io_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    // The binary may lie where an ordinary user cannot look.
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    set_mode(&program, 0o755);
    let mut child = Command::new(&program);
    child.args(["--exact", "child_without_rights", "--nocapture"]).env(DIR, dir.path());
    if dir.path().metadata().unwrap().uid() == 0 {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        child.uid(NOBODY).gid(NOBODY);
    }
    let output = child.current_dir(dir.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(dir.path().join("done").exists(), "the child did not run to the end: {told}");
}
