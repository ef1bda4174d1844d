//! The way of an answer from a helper to a future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::error::{Error, Result};

struct Inner<T> {
    answer: Option<T>,
    waker: Option<Waker>,
    /// Nothing more comes.
    ended: bool,
}

/// Where an answer goes. Dropped without one, the other end gets an error.
pub(super) struct Promise<T>(Arc<Mutex<Inner<T>>>);

/// Where it arrives.
pub(super) struct Reply<T>(Arc<Mutex<Inner<T>>>);

pub(super) fn reply<T>() -> (Promise<T>, Reply<T>) {
    let inner = Arc::new(Mutex::new(Inner { answer: None, waker: None, ended: false }));
    (Promise(Arc::clone(&inner)), Reply(inner))
}

impl<T> Promise<T> {
    pub(super) fn keep(self, answer: T) {
        self.0.lock().answer = Some(answer);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.ended = true;
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let mut inner = self.0.lock();
        if let Some(answer) = inner.answer.take() {
            return Poll::Ready(Ok(answer));
        }
        if inner.ended {
            let detail = "a thread that waited for an answer has panicked".to_owned();
            return Poll::Ready(Err(Error::Poisoned { detail }));
        }
        let before = inner.waker.replace(context.waker().clone());
        drop(inner);
        // Not under the lock: whatever a waker does when it is dropped.
        drop(before);
        Poll::Pending
    }
}
