//! An executor made by hand: polls as often as a test says, and is woken like any other.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

struct Unparks(Thread, AtomicU64);

impl Wake for Unparks {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Runs a future on this thread until it is ready.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let wakes = Arc::new(Unparks(thread::current(), AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&wakes));
    loop {
        let seen = wakes.1.load(Ordering::SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let begun = Instant::now();
        while wakes.1.load(Ordering::SeqCst) == seen {
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody wakes the future");
            thread::park_timeout(Duration::from_secs(1));
        }
    }
}

pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Polls once, with a waker that does nothing.
pub(crate) fn poll_once<T>(future: &mut Boxed<T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The output of a future that is ready in its first poll.
pub(crate) fn at_once<T>(future: impl Future<Output = T> + Send + 'static) -> T {
    let mut future: Boxed<T> = Box::pin(future);
    match poll_once(&mut future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it is not ready at once"),
    }
}

/// Polls a future once, and waits so long before it is dropped. False where it was ready: somebody was
/// quick, and it was told.
pub(crate) fn drop_after<T>(
    future: impl Future<Output = T> + Send + 'static,
    wait: Duration,
) -> bool {
    let mut future: Boxed<T> = Box::pin(future);
    let untold = poll_once(&mut future).is_pending();
    thread::sleep(wait);
    untold
}

/// Runs all futures on this thread until each is ready.
pub(crate) fn join_all<T>(futures: Vec<Boxed<T>>) -> Vec<T> {
    block_on(async {
        let mut futures: Vec<_> = futures.into_iter().map(|future| (future, None)).collect();
        std::future::poll_fn(|context| {
            let mut pending = false;
            for (future, output) in futures.iter_mut().filter(|(_, output)| output.is_none()) {
                match future.as_mut().poll(context) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => pending = true,
                }
            }
            if pending { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        futures.into_iter().map(|(_, output)| output.unwrap()).collect()
    })
}
