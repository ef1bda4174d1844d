//! Keys that something else has marked at the same server, before a store decided.

use std::time::Instant;

use super::Result;

/// Keys of before: the marks that another program made at the server, by names of its own. They are asked
/// for while the window of a store is not complete: see [`super::Authority::legacy`].
///
/// Calls have the keys as the user gave them, whatever the scope.
pub trait Legacy {
    /// Whether each key is marked there, in their order. Nothing is changed.
    ///
    /// # Errors
    /// Those of any call, for all keys alike.
    fn are_marked(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<bool>>;

    /// Deletes the marks; says of each whether it was there.
    ///
    /// # Errors
    /// Those of any call. Some may be deleted all the same; deleting again does no harm.
    fn forget(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<bool>>;
}
