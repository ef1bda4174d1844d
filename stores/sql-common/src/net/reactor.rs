//! Runs what a connection does, up to a deadline.

use std::future::Future;
use std::io;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};

/// What a connection lives on: a runtime of one thread, which is the one that calls. The blocking
/// clients of databases wait for a reply for as long as it takes; what is polled can be given up.
#[derive(Debug)]
pub struct Reactor(Option<Runtime>);

impl Reactor {
    /// # Errors
    /// The machine has no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Reactor(Some(Builder::new_current_thread().enable_all().build()?)))
    }

    /// Waits for `work`, or until the deadline: then `None`. Must not be called from inside a
    /// runtime.
    pub fn run<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        let runtime = self.0.as_ref()?;
        runtime.block_on(async {
            // The timer is made in there, where the clock is that of the runtime.
            tokio::time::timeout_at(deadline.into(), work).await.ok()
        })
    }

    /// Lives on beside the calls, and goes on whenever there is one.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(runtime) = &self.0 {
            runtime.spawn(work);
        }
    }

    /// Lets what was spawned look at what has come meanwhile: the end of the connection, mostly.
    pub fn catch_up(&self) {
        if let Some(runtime) = &self.0 {
            runtime.block_on(async {
                // The first asks the system, the next runs who was waiting, the last who was woken.
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            });
        }
    }
}

/// A look-up of a name may hang in the system's library: nobody waits for it.
impl Drop for Reactor {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
