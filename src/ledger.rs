//! The manifest in use: the one place that decides which files are live.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::format::manifest::Manifest;
use crate::format::names;
use crate::storage::Storage;
use crate::sync::{AtomicU64, Mutex};

pub(crate) struct Ledger {
    storage: Arc<dyn Storage>,
    state: Mutex<State>,
    next_file: AtomicU64,
}

struct State {
    manifest: Manifest,
    closed: bool,
}

impl Ledger {
    pub(crate) fn new(storage: Arc<dyn Storage>, manifest: Manifest) -> Self {
        let next_file = AtomicU64::new(manifest.next_file);
        Ledger { storage, state: Mutex::new(State { manifest, closed: false }), next_file }
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

    /// Changes the manifest and publishes it; it survives power loss from here on. On an error
    /// nothing has changed as far as this process goes, but the manifest on the disk may be the new
    /// one: files that it would name must stay.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let mut manifest = state.manifest.clone();
        change(&mut manifest);
        manifest.link(false);
        manifest.sequence += 1;
        manifest.next_file = self.next_file.load(Ordering::Relaxed);
        self.storage.replace(names::MANIFEST, &|stamp| manifest.encode(stamp))?;
        state.manifest = manifest;
        Ok(())
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Manifest) -> T) -> T {
        look(&self.state.lock().manifest)
    }

    /// No later change is published.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }
}
