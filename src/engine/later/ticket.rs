//! Whether the future that asked is still there, and what was made for it.
//!
//! Both are looked at under one lock by the helper that makes a mark or a grant known here and by the future
//! that is dropped: either the helper finds that nobody waits, and nothing is made, or the future finds what
//! was made, and takes it back before its drop ends. So who asks again after that never meets the mark of a
//! call that was told nothing.

use parking_lot::{Mutex, MutexGuard};

use crate::authority::Token;
use crate::digest::Digest;

#[derive(Default)]
pub(in crate::engine) struct Ticket(Mutex<Entry>);

#[derive(Default)]
pub(in crate::engine) struct Entry {
    pub(in crate::engine) gone: bool,
    pub(in crate::engine) made: Vec<Made>,
}

/// A mark or a grant that nobody was told of yet.
pub(in crate::engine) struct Made {
    pub(in crate::engine) digest: Digest,
    pub(in crate::engine) token: Token,
    pub(in crate::engine) sent_ns: i64,
    /// The token here of a claim; `None` for a mark.
    pub(in crate::engine) claim: Option<u64>,
}

impl Ticket {
    pub(in crate::engine) fn enter(&self) -> MutexGuard<'_, Entry> {
        self.0.lock()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.0.lock().gone
    }

    /// The future was told.
    pub(super) fn told(&self) {
        self.0.lock().made.clear();
    }

    /// The future is dropped: what was made for it.
    pub(super) fn leave(&self) -> Vec<Made> {
        let mut entry = self.0.lock();
        entry.gone = true;
        std::mem::take(&mut entry.made)
    }
}
