//! One line on a terminal that says how far a run is.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::time::{Duration, Instant};

use crate::count::Counts;
use crate::units::{bytes, grouped};

const INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct Progress {
    /// `None` when nothing is shown.
    next: Option<Instant>,
    total_bytes: Option<u64>,
    shown: bool,
}

impl Progress {
    /// Shows nothing unless stderr is a terminal, nor where the records themselves go to one.
    pub(crate) fn new(wanted: bool, total_bytes: Option<u64>) -> Self {
        let visible = wanted && stderr().is_terminal() && !stdout().is_terminal();
        Progress { next: visible.then(|| Instant::now() + INTERVAL), total_bytes, shown: false }
    }

    /// Shows the counts if it is time to.
    pub(crate) fn tick(&mut self, counts: &Counts) {
        let Some(next) = self.next else { return };
        let now = Instant::now();
        if now < next {
            return;
        }
        self.next = Some(now + INTERVAL);
        self.shown = true;
        let share = match self.total_bytes {
            Some(total) if total > 0 => format!("{}% of ", counts.bytes_read * 100 / total),
            _ => String::new(),
        };
        let speed = counts.bytes_read as f64 / counts.elapsed().as_secs_f64();
        let line = format!(
            "\r{share}{} lines, {} duplicates, {}/s\x1b[K",
            grouped(counts.lines()),
            grouped(counts.duplicate),
            bytes(speed as u64),
        );
        let _ = stderr().write_all(line.as_bytes());
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = stderr().write_all(b"\r\x1b[K");
        }
    }
}
