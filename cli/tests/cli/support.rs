//! Starting the command and looking at what it did.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A directory of its own for each test, in which the command runs.
pub(crate) struct Place(tempfile::TempDir);

/// What a run did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path(name), content).unwrap();
        self
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        command_in(self.0.path(), args)
    }

    /// Runs with an empty stdin.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.pipe(args, "")
    }

    /// Runs with `input` on stdin.
    pub(crate) fn pipe(&self, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let input = input.as_ref().to_vec();
        let mut child = self.command(args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A thread, because output may fill its pipe first; the command may end without reading.
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let ran = ran(child);
        let _ = feeder.join().unwrap();
        ran
    }
}

fn command_in(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onceonly"));
    command.current_dir(dir).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the end of `child`.
pub(crate) fn ran(child: Child) -> Ran {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Ran {
        code: status.code(),
        // Bytes that are not UTF-8 are compared by the tests that write them, with `as_latin1`.
        stdout: as_latin1(&stdout),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Bytes as text that keeps each byte: UTF-8 where it is, else one character a byte.
pub(crate) fn as_latin1(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

impl Ran {
    /// Success, with exactly this on stdout and nothing on stderr.
    #[track_caller]
    pub(crate) fn prints(&self, stdout: &str) {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        assert_eq!(self.stdout, stdout);
    }

    /// Success; what it printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout
    }

    /// Exit code `code`, and a message that has all of `words`.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {:?}", self.stderr);
        }
    }
}
