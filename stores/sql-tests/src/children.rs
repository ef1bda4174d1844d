//! Processes that run one test of the same binary again.

use std::env;
use std::io::Read;
use std::process::{Child, Command, Stdio};

const NAME: &str = "ONCEONLY_TEST_CHILD";

/// What this process was given, if it is a child.
#[must_use]
pub fn is_child() -> Option<String> {
    env::var(NAME).ok()
}

/// Several processes that run the same test.
pub struct Children(Vec<Child>);

impl Children {
    /// Runs `test` of this binary in `count` processes at once, and gives each `word`.
    #[must_use]
    pub fn spawn(count: usize, test: &str, word: &str) -> Self {
        let binary = env::current_exe().unwrap_or_else(|error| panic!("no binary: {error}"));
        let child = |_| {
            Command::new(&binary)
                .args(["--exact", test, "--nocapture", "--test-threads=1"])
                .env(NAME, word)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("a child does not start: {error}"))
        };
        Children((0..count).map(child).collect())
    }

    /// How often each of `keys` was won, by the lines that the children print.
    #[must_use]
    pub fn wins(self, keys: usize) -> Vec<u32> {
        let mut wins = vec![0; keys];
        for mut child in self.0 {
            let mut printed = String::new();
            if let Some(out) = &mut child.stdout {
                out.read_to_string(&mut printed).unwrap_or_else(|error| panic!("{error}"));
            }
            let status = child.wait().unwrap_or_else(|error| panic!("{error}"));
            assert!(status.success(), "a child failed: {printed}");
            let won = printed.lines().filter_map(|line| line.strip_prefix("won "));
            for at in won.filter_map(|at| at.parse::<usize>().ok()) {
                wins[at] += 1;
            }
        }
        wins
    }
}
