//! The counterpart for streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};

use super::{Filter, ItemError};
use crate::dedup::Scope;

/// [`OnceStream::once_by_key`] for every stream that may be moved; pin others with
/// [`std::pin::pin!`] or `Box::pin`.
pub trait OnceStream: Stream + Unpin + Sized {
    /// Passes on the items whose key is new in `scope`, and leaves out duplicates, as
    /// [`crate::OnceIterator::once_by_key`] does. An item that could not be decided comes back with
    /// the error, and is not marked.
    ///
    /// The calls of the store are made while the stream is polled; they do not wait.
    fn once_by_key<K, F>(self, scope: &Scope, key: F) -> OnceByKeyStream<Self, F>
    where
        F: FnMut(&Self::Item) -> K,
        K: AsRef<[u8]>,
    {
        OnceByKeyStream { items: self, filter: Filter { scope: scope.clone(), key } }
    }
}

impl<S: Stream + Unpin> OnceStream for S {}

/// The stream of [`OnceStream::once_by_key`].
#[must_use = "streams are lazy: nothing is marked until it is polled"]
pub struct OnceByKeyStream<S, F> {
    items: S,
    filter: Filter<F>,
}

// The closure is never pinned.
impl<S: Unpin, F> Unpin for OnceByKeyStream<S, F> {}

impl<S, F, K> Stream for OnceByKeyStream<S, F>
where
    S: Stream + Unpin,
    F: FnMut(&S::Item) -> K,
    K: AsRef<[u8]>,
{
    type Item = Result<S::Item, ItemError<S::Item>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let Some(item) = ready!(Pin::new(&mut this.items).poll_next(context)) else {
                return Poll::Ready(None);
            };
            if let Some(decided) = this.filter.decide(item) {
                return Poll::Ready(Some(decided));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.items.size_hint().1)
    }
}

impl<S, F, K> FusedStream for OnceByKeyStream<S, F>
where
    S: FusedStream + Unpin,
    F: FnMut(&S::Item) -> K,
    K: AsRef<[u8]>,
{
    fn is_terminated(&self) -> bool {
        self.items.is_terminated()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for OnceByKeyStream<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceByKeyStream").field("items", &self.items).finish_non_exhaustive()
    }
}
