//! Adapters for those who have an iterator or a stream of items and want each item once.

use std::fmt;

use crate::dedup::Scope;
use crate::error::Error;
use crate::verdict::Verdict;

#[cfg(feature = "stream")]
mod stream;

#[cfg(feature = "stream")]
pub use stream::{OnceByKeyStream, OnceStream};

/// [`OnceIterator::once_by_key`] for every iterator.
pub trait OnceIterator: Iterator + Sized {
    /// Passes on the items whose key is new in `scope`, and leaves out duplicates. An item that could
    /// not be decided comes back with the error, and is not marked.
    ///
    /// Marks at once, like [`Scope::observe`]: "at most once", for items that are only passed on or
    /// counted. Where the work may fail use [`Scope::process_once`].
    ///
    /// As with `sort_by_key` of slices, the key cannot borrow from the item, unless the items are
    /// references themselves.
    ///
    /// ```
    /// use onceonly::{Dedup, OnceIterator};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dedup = Dedup::builder().window(Duration::from_secs(3600)).in_memory()?;
    /// let events = [(7, "login"), (8, "login"), (7, "login, again")];
    /// let scope = dedup.scope("logins");
    /// let once = events.into_iter().once_by_key(&scope, |(user, _): &(u32, &str)| user.to_le_bytes());
    /// let once: Vec<_> = once.collect::<Result<_, _>>()?;
    /// assert_eq!(once, [(7, "login"), (8, "login")]);
    /// # Ok(())
    /// # }
    /// ```
    fn once_by_key<K, F>(self, scope: &Scope, key: F) -> OnceByKey<Self, F>
    where
        F: FnMut(&Self::Item) -> K,
        K: AsRef<[u8]>,
    {
        OnceByKey { items: self, filter: Filter { scope: scope.clone(), key } }
    }
}

impl<I: Iterator> OnceIterator for I {}

/// The iterator of [`OnceIterator::once_by_key`].
#[derive(Clone)]
#[must_use = "iterators are lazy: nothing is marked until it is consumed"]
pub struct OnceByKey<I, F> {
    items: I,
    filter: Filter<F>,
}

impl<I, F, K> Iterator for OnceByKey<I, F>
where
    I: Iterator,
    F: FnMut(&I::Item) -> K,
    K: AsRef<[u8]>,
{
    type Item = Result<I::Item, ItemError<I::Item>>;

    fn next(&mut self) -> Option<Self::Item> {
        let filter = &mut self.filter;
        self.items.find_map(|item| filter.decide(item))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.items.size_hint().1)
    }
}

impl<I: fmt::Debug, F> fmt::Debug for OnceByKey<I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceByKey").field("items", &self.items).finish_non_exhaustive()
    }
}

/// What iterator and stream share.
#[derive(Clone)]
struct Filter<F> {
    scope: Scope,
    key: F,
}

impl<F> Filter<F> {
    /// None for a duplicate.
    fn decide<T, K>(&mut self, item: T) -> Option<Result<T, ItemError<T>>>
    where
        F: FnMut(&T) -> K,
        K: AsRef<[u8]>,
    {
        match self.scope.observe((self.key)(&item)) {
            Ok(Verdict::New) => Some(Ok(item)),
            // Without a timestamp nothing is too old.
            Ok(Verdict::Duplicate | Verdict::TooOld) => None,
            Err(error) => Some(Err(ItemError { item, error: Box::new(error) })),
        }
    }
}

/// An item that could not be decided. It is not marked, save perhaps at an authority whose reply was
/// lost ([`Error::Undecided`]), and comes back, so that it can be tried again or kept.
pub struct ItemError<T> {
    item: T,
    error: Box<Error>,
}

impl<T> ItemError<T> {
    /// The cause.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The item and the cause.
    #[must_use]
    pub fn into_parts(self) -> (T, Error) {
        (self.item, *self.error)
    }
}

impl<T> fmt::Debug for ItemError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for ItemError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item is not decided and not marked")
    }
}

impl<T> std::error::Error for ItemError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}
