//! Calls that wait for nobody: what they would wait for is left to who made them.
//!
//! A future runs the very call that a thread would run. Where that would wait for the disk, it hands out the
//! epoch of the log that it would wait for, and the future waits instead.

use std::cell::Cell;

#[derive(Clone, Copy, Default)]
struct Deferral {
    /// The newest epoch that the call would wait for.
    epoch: u64,
}

thread_local! {
    /// The call of this thread, if it waits for nobody.
    static DEFERRAL: Cell<Option<Deferral>> = const { Cell::new(None) };
}

/// Ends it, also when the call panics.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        DEFERRAL.set(None);
    }
}

/// Makes a call that waits for nobody, and was admitted: what it answers, and the epoch of the log that has
/// to be on the disk before anybody is told; 0 for none.
pub(super) fn without_waiting<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let _ending = Ending;
    DEFERRAL.set(Some(Deferral::default()));
    let answer = call();
    let left = DEFERRAL.take().unwrap_or_default();
    (answer, left.epoch)
}

/// Whether the call of this thread waits for nobody.
pub(in crate::engine) fn waits_for_nobody() -> bool {
    DEFERRAL.get().is_some()
}

/// Leaves it to who made the call to wait for an epoch.
pub(in crate::engine) fn leave(epoch: u64) {
    let left = DEFERRAL.get().unwrap_or_default();
    DEFERRAL.set(Some(Deferral { epoch: left.epoch.max(epoch) }));
}
