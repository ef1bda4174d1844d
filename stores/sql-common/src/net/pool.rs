//! Connections that nobody uses at the moment.

use std::sync::{Mutex, PoisonError};

/// Connections that are kept; there are as many calls at a time as the engine has threads for.
const MOST_IDLE: usize = 4;

/// Connections that nobody uses at the moment. Who takes one gives it back only when no reply is
/// due.
#[derive(Debug)]
pub struct Pool<C>(Mutex<Vec<C>>);

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Pool(Mutex::new(Vec::new()))
    }
}

impl<C> Pool<C> {
    /// The one that was used last, if there is one.
    pub fn take(&self) -> Option<C> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// For the next who asks.
    pub fn give_back(&self, connection: C) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(connection);
            return;
        }
        // Closing it takes time; nobody else needs to wait for that.
        drop(idle);
        drop(connection);
    }
}
