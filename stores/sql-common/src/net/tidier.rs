//! A thread that deletes what is over, apart from the calls.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A thread that tidies up every now and then; it ends when this is dropped.
#[derive(Debug)]
pub struct Tidier {
    /// Never sent anything; the other end notices when it goes.
    _alive: Sender<()>,
}

impl Tidier {
    /// Calls `batch` every `pause`, and then as long as it says that there is more. Between two
    /// batches it rests for as long as the last took: others want the server too.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(
        name: &str,
        pause: Duration,
        mut batch: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (alive, gone) = channel::<()>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut rest = pause;
            while let Err(RecvTimeoutError::Timeout) = gone.recv_timeout(rest) {
                let began = Instant::now();
                rest = if batch() { began.elapsed() } else { pause };
            }
        })?;
        Ok(Tidier { _alive: alive })
    }
}
