//! The producer's local transaction, and what it answers when the server checks back.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use account::{Books, Message, open_store};
use anyhow::{Context as _, Result, ensure};
use onceonly::{Claim, ClaimGuard, Dedup};

/// The answer to "what became of this half message?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The order is in the books: deliver it.
    Deliver,
    /// It is not, and whoever wanted to place it is gone: drop it.
    Drop,
    /// It is being placed: ask again.
    Unknown,
}

/// A shop whose orders are placed at most once. Cheap to clone.
#[derive(Clone)]
pub struct Shop {
    dedup: Dedup,
    books: Arc<Mutex<Books>>,
}

impl Shop {
    /// Opens store and books below `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Shop { dedup: open_store(dir)?, books: Arc::new(Mutex::new(Books::open(dir)?)) })
    }

    /// Claims the right to place an order, before its half message is sent; `None` if it is placed, or
    /// being placed.
    pub fn begin(&self, order: &Message) -> Result<Option<ClaimGuard>> {
        match self.dedup.claim(&order.id)? {
            Claim::Granted(guard) => Ok(Some(guard)),
            _ => Ok(None),
        }
    }

    /// The local transaction, then the mark. Refused when a check-back has dropped the half message,
    /// because this producer was slower than its lease.
    pub fn place(&self, order: &Message, guard: ClaimGuard) -> Result<()> {
        let mut books = self.books();
        books.apply([(order, guard.token())].into_iter())?;
        ensure!(books.has(order)?, "{} was given up while it was being placed", order.id);
        guard.commit().context("the order is placed and not marked")
    }

    /// The check-back. The claim tells whether somebody is at it; if nobody is, the books tell.
    pub fn check(&self, order: &Message) -> Result<Decision> {
        match self.dedup.claim(&order.id)? {
            Claim::Duplicate { .. } => Ok(Decision::Deliver),
            // A producer died between the books and the mark, or before both.
            Claim::Granted(guard) => {
                let mut books = self.books();
                // Before the look: who wakes up after that finds the fence.
                books.fence(order, guard.token())?;
                if books.has(order)? {
                    guard.commit().context("an order that is placed could not be marked")?;
                    return Ok(Decision::Deliver);
                }
                // Dropping the guard gives the order back: a producer that begins anew sends anew.
                Ok(Decision::Drop)
            }
            _ => Ok(Decision::Unknown),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
