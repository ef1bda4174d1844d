//! Looks at a store's directory now and then: sealing adds files, merging and expiry take some away.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::args::Result;

pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, usize)>>,
}

impl Watch {
    pub(super) fn start(dir: &Path, every: Duration) -> Self {
        let (dir, stop) = (dir.to_owned(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                seen.push((Instant::now(), sealed_files(&dir)));
                thread::sleep(every);
            }
            seen
        });
        Watch { stop, thread }
    }

    /// The number of sealed files over time.
    pub(super) fn end(self) -> Result<Vec<(Instant, usize)>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the watching thread panicked".into())
    }
}

fn sealed_files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"run-")).count()
}
