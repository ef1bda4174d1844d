//! The space of a store that is still being opened: should that fail, nobody waits for its lease.

use std::sync::Arc;

use crate::authority::{Acquired, Token};
use crate::format::manifest::Manifest;
use crate::format::names;
use crate::gather::{Leaving, Link};
use crate::storage::Storage;

/// Gives the space back when it is dropped, unless the store has taken it over.
pub(in crate::engine) struct Provisional {
    link: Link,
    leaving: Option<Leaving>,
    /// Where the name is written down as one that may be used again, and what takes the place of that.
    named: Option<(Arc<dyn Storage>, Manifest)>,
}

impl Provisional {
    pub(in crate::engine) fn new(link: &Link, holder: Token, acquired: &Acquired) -> Self {
        // Nothing was seen under this name. Whether all of before was written is for the last owner to say.
        let all_is_written = acquired.released || acquired.last.is_none();
        let unwritten = (!all_is_written).then_some(acquired.progress);
        let leaving = Some(Leaving { epoch: acquired.epoch, holder, unwritten });
        Provisional { link: link.clone(), leaving, named: None }
    }

    pub(in crate::engine) fn is_named_in(&mut self, storage: &Arc<dyn Storage>, instead: Manifest) {
        self.named = Some((Arc::clone(storage), instead));
    }

    /// The manifest names the owner from here on.
    pub(in crate::engine) fn is_published(&mut self) {
        self.named = None;
    }

    /// The store gives it back itself.
    pub(in crate::engine) fn keep(&mut self) {
        self.leaving = None;
    }
}

impl Drop for Provisional {
    fn drop(&mut self) {
        let Some(leaving) = self.leaving.take() else { return };
        // The space could be acquired once more under the name before the server hears of this.
        if let Some((storage, instead)) = self.named.take()
            && storage.replace(names::MANIFEST, &|stamp| instead.encode(stamp)).is_err()
        {
            return;
        }
        // The lease ends by itself otherwise.
        let _ = self.link.leave(leaving);
    }
}
