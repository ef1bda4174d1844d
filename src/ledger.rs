//! The manifest in use: the one place that decides which files are live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::format::manifest::Manifest;
use crate::format::names;
use crate::storage::Storage;

pub(crate) struct Ledger {
    storage: Arc<dyn Storage>,
    state: Mutex<State>,
    next_file: AtomicU64,
}

struct State {
    manifest: Manifest,
    closed: bool,
    /// The newest manifest survives power loss.
    durable: bool,
}

impl Ledger {
    pub(crate) fn new(storage: Arc<dyn Storage>, manifest: Manifest) -> Self {
        let next_file = AtomicU64::new(manifest.next_file);
        Ledger {
            storage,
            state: Mutex::new(State { manifest, closed: false, durable: false }),
            next_file,
        }
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub(crate) fn store(&self) -> StoreId {
        self.state.lock().manifest.store
    }

    /// A number that no file of the store has.
    pub(crate) fn next_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Changes the manifest and publishes it, as one step: on an error nothing has changed.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.publish(change, false)
    }

    /// [`Ledger::update`], and the manifest survives power loss.
    pub(crate) fn update_durably(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.publish(change, true)
    }

    fn publish(&self, change: impl FnOnce(&mut Manifest), durable: bool) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let mut manifest = state.manifest.clone();
        change(&mut manifest);
        manifest.sequence += 1;
        manifest.next_file = self.next_file.load(Ordering::Relaxed);
        self.storage.replace(names::MANIFEST, &manifest.encode(), durable)?;
        state.manifest = manifest;
        state.durable = durable;
        Ok(())
    }

    /// Makes the manifest as it is survive power loss.
    pub(crate) fn make_durable(&self) -> Result<()> {
        if self.state.lock().durable { Ok(()) } else { self.update_durably(|_| {}) }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Manifest) -> T) -> T {
        look(&self.state.lock().manifest)
    }

    /// No later change is published.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }
}
