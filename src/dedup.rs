//! The public handles: [`Dedup`] for a store, [`Scope`] for one namespace of it.

mod later;
mod legacy;
mod scope;
mod shadow;

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::claim::{self, ClaimGuard, CommitError, Manner};
use crate::config::Builder;
use crate::digest::KeyHasher;
use crate::engine::{self, Engine};
use crate::error::Result;
use crate::offline;
use crate::stats::{ClaimInfo, Stats, WarmUp};
use crate::time::Timestamp;

/// An open store. A handle: cheap to clone, shared by any number of threads, no call needs `&mut`.
/// It is the root [`Scope`], whose calls it has by `Deref`.
///
/// Dropping the last handle (scopes included) closes the store.
#[derive(Clone)]
pub struct Dedup {
    root: Scope,
}

/// The calls of a store for one namespace: a topic, a consumer group, a tenant. Equal keys of two
/// scopes are different keys. Cheap to clone, and as fast as the root.
#[derive(Clone)]
pub struct Scope {
    handle: Arc<Handle>,
    hasher: Arc<KeyHasher>,
    manner: Manner,
}

/// Closes the store when the last handle goes.
struct Handle {
    engine: Arc<Engine>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // An error here is written to the store and shows in the next open's recovery report.
        let _ = self.engine.close();
    }
}

impl fmt::Debug for Dedup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedup").finish_non_exhaustive()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

impl Deref for Dedup {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.root
    }
}

impl Dedup {
    /// Settings for a store; [`Builder::open`] and [`Builder::in_memory`] open it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_engine(engine: Arc<Engine>) -> Self {
        let hasher = Arc::new(engine.root_hasher());
        let manner = Manner::of(&engine);
        Dedup { root: Scope { handle: Arc::new(Handle { engine }), hasher, manner } }
    }

    /// The calls of this store for the namespace `name`. The root differs from `scope("")`.
    #[must_use]
    pub fn scope(&self, name: impl AsRef<[u8]>) -> Scope {
        let hasher = Arc::new(self.engine().scope_hasher(name.as_ref()));
        Scope { hasher, ..self.root.clone() }
    }

    /// The least instant `G` such that `New` proves that no observation was acknowledged in
    /// `[G, now]`: the end of the newest hole, or `now - window`. Event time in event-time stores.
    #[must_use]
    pub fn guaranteed_since(&self) -> Timestamp {
        self.engine().guaranteed_since()
    }

    /// Counters, sizes and coverage. Takes each shard's lock in turn; not for the hot loop.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine().stats()
    }

    /// The claims in flight of all scopes, those of a crashed owner included.
    ///
    /// # Errors
    /// [`crate::Error::Closed`].
    pub fn claims(&self) -> Result<Vec<ClaimInfo>> {
        self.engine().claims()
    }

    /// The claims whose lease has run out or whose owner is known dead, each taken over with a new
    /// token and the store's lease, ready to be driven on ([`ClaimGuard::commit`]) or undone
    /// ([`ClaimGuard::abandon`]). [`crate::ClaimOptions::note`] tells what they were about. With an authority
    /// it decides: those whose lease runs there still, and those that others took over, are not among
    /// them, nor are claims of other stores.
    ///
    /// # Errors
    /// [`crate::Error::Closed`], [`crate::Error::Io`]; claims taken over before an error are
    /// abandoned again.
    pub fn expired_claims(&self) -> Result<Vec<ClaimGuard>> {
        claim::expired(self.engine())
    }

    /// Commits many claims; the answers are in the order of the guards. Each failed one brings its
    /// guard back.
    #[must_use = "each commit may have failed"]
    pub fn commit_batch(
        &self,
        guards: impl IntoIterator<Item = ClaimGuard>,
    ) -> Vec<std::result::Result<(), CommitError>> {
        claim::commit_batch(guards)
    }

    /// Loads what owners before this store have written to the authority (`Ownership::Exclusive`), so that
    /// no key has to be asked for any more; `progress` hears how far it has come. Other calls go on
    /// meanwhile. Without it each part of the space is read when its first unknown key comes. A store
    /// that knows everything already, or has no such authority, is done at once.
    ///
    /// # Errors
    /// [`crate::Error::Authority`], whatever `on_outage` says: what was loaded stays, and the next call
    /// goes on there. [`crate::Error::Full`], [`crate::Error::Io`], [`crate::Error::Closed`],
    /// [`crate::Error::OwnershipLost`].
    pub fn warm_up(&self, progress: impl FnMut(WarmUp)) -> Result<()> {
        self.engine().warm_up(progress)
    }

    /// Writes everything acknowledged so far to the disk, so that it survives power loss.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Poisoned`] when the disk refuses; each call tries
    /// again, with a new file. [`crate::Error::Closed`].
    pub fn sync(&self) -> Result<()> {
        self.engine().sync()
    }

    /// Closes the store and releases its lock, even while handles live (their calls are then
    /// [`crate::Error::Closed`]). Closing again does nothing.
    ///
    /// # Errors
    /// [`crate::Error::Io`]: the store is closed all the same, and the next open's recovery report
    /// shows the error. Nothing acknowledged is lost by it. With `Ownership::Exclusive`
    /// [`crate::Error::Authority`] when the authority does not have everything: this directory has it, and
    /// the next owner with another one has a hole.
    pub fn close(&self) -> Result<()> {
        self.engine().close()
    }

    /// Waits until the background work that is due (sealing, merging, rebuilding) is done. For
    /// benchmarks and tests; nothing depends on it.
    #[doc(hidden)]
    pub fn settle(&self) {
        self.engine().settle();
    }
}

/// From settings to an open store.
impl Builder {
    /// Opens the store in directory `dir`, which is created if it does not exist.
    ///
    /// Takes well under a second at any size: filter and sets are mapped, not rebuilt. When shards,
    /// window, slices or size have changed, the filter is rebuilt in the background, and answers are
    /// exact meanwhile.
    ///
    /// # Errors
    /// [`crate::Error::Config`], [`crate::Error::Locked`], [`crate::Error::Mismatch`],
    /// [`crate::Error::Version`], [`crate::Error::NotAStore`],
    /// [`crate::Error::Filesystem`], [`crate::Error::Corrupt`], [`crate::Error::Io`]. With an authority
    /// [`crate::Error::Authority`] when it cannot be asked, unless keys are assumed to be new then; with
    /// `Ownership::Exclusive` in any case, and [`crate::Error::NotExclusive`].
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Dedup> {
        let config = self.settings.validate()?;
        engine::open_dir(config, dir.as_ref()).map(Dedup::from_engine)
    }

    /// The settings with which the store in `dir` was last opened, save those that concern the owner
    /// alone: durability, `lock_wait` and the clock have their defaults. Digest and secret are the
    /// store's own in any case. Setters called afterwards change them. The authority of a store that
    /// shares a space is not among them: name it anew, else opening is [`crate::Error::Mismatch`].
    ///
    /// # Errors
    /// [`crate::Error::NotAStore`] when there is none, [`crate::Error::Unfinished`] when its creation
    /// was interrupted; [`crate::Error::Version`], [`crate::Error::Corrupt`], [`crate::Error::Io`].
    pub fn stored(dir: impl AsRef<Path>) -> Result<Builder> {
        offline::stored_settings(dir.as_ref()).map(|settings| Builder { settings })
    }

    /// Opens a store on a simulated disk.
    ///
    /// # Errors
    /// Those of [`Builder::open`].
    #[cfg(feature = "test-storage")]
    #[doc(hidden)]
    pub fn open_simulated(self, disk: &crate::sim::SimDisk) -> Result<Dedup> {
        engine::open_simulated(self.settings.validate()?, disk).map(Dedup::from_engine)
    }

    /// Opens a store as if the machine had been booted anew.
    ///
    /// # Errors
    /// Those of [`Builder::open`].
    #[cfg(feature = "test-storage")]
    #[doc(hidden)]
    pub fn open_on_boot(self, dir: impl AsRef<Path>, boot: [u8; 16]) -> Result<Dedup> {
        let config = self.settings.validate()?;
        engine::open_dir_on_boot(config, dir.as_ref(), boot).map(Dedup::from_engine)
    }

    /// Opens a store that keeps nothing on disk; everything else is the same.
    ///
    /// # Errors
    /// [`crate::Error::Config`], [`crate::Error::Io`] when memory is refused. With an authority
    /// [`crate::Error::Authority`] and [`crate::Error::Mismatch`], as in [`Builder::open`].
    pub fn in_memory(self) -> Result<Dedup> {
        let config = self.settings.validate()?;
        engine::open_in_memory(config).map(Dedup::from_engine)
    }
}
