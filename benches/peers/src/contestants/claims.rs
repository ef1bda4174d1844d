//! The engine by its other calls: claim and commit instead of observe.

use onceonly::{Claim, Outcome};

use super::{Contestant, Store};
use crate::keys::Key;

/// `claim`, then `commit`; many at once by `claim_batch` and `commit_batch`.
pub(crate) struct Claims(pub(crate) Store);

impl Contestant for Claims {
    fn name(&self) -> &'static str {
        "claim + commit"
    }

    fn advance(&self, now: u64) {
        self.0.advance(now);
    }

    fn observe_each(&self, keys: &[Key], answers: &mut [bool]) {
        for (key, answer) in keys.iter().zip(answers) {
            *answer = match self.0.dedup().claim(key).expect("claim") {
                Claim::Granted(guard) => {
                    guard.commit().expect("commit");
                    false
                }
                Claim::Duplicate { .. } => true,
                other => panic!("{other:?} of a key that nobody holds"),
            };
        }
    }

    fn observe_batches(&self, keys: &[Key], batch: usize, answers: &mut [bool]) {
        let mut guards = Vec::with_capacity(batch);
        for (keys, answers) in keys.chunks(batch).zip(answers.chunks_mut(batch)) {
            let claims = self.0.dedup().claim_batch(keys).expect("claim a batch");
            for (claim, answer) in claims.into_iter().zip(answers) {
                *answer = match claim {
                    Claim::Granted(guard) => {
                        guards.push(guard);
                        false
                    }
                    Claim::Duplicate { .. } => true,
                    other => panic!("{other:?} of a key that nobody holds"),
                };
            }
            for committed in self.0.dedup().commit_batch(guards.drain(..)) {
                committed.expect("commit");
            }
        }
    }

    fn settle(&self) {
        self.0.settle();
    }

    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }

    fn told_memory_bytes(&self) -> Option<u64> {
        self.0.told_memory_bytes()
    }
}

/// `process_once` with a handler that does nothing.
pub(crate) struct ProcessOnce(pub(crate) Store);

impl Contestant for ProcessOnce {
    fn name(&self) -> &'static str {
        "process_once"
    }

    fn advance(&self, now: u64) {
        self.0.advance(now);
    }

    fn observe_each(&self, keys: &[Key], answers: &mut [bool]) {
        for (key, answer) in keys.iter().zip(answers) {
            let outcome = self.0.dedup().process_once(key, |_| Ok::<_, std::fmt::Error>(()));
            *answer = match outcome.expect("process") {
                Outcome::Done(()) => false,
                Outcome::Duplicate { .. } => true,
                other => panic!("{other:?} of a key that nobody holds"),
            };
        }
    }

    /// There is no call for many keys.
    fn observe_batches(&self, keys: &[Key], _batch: usize, answers: &mut [bool]) {
        self.observe_each(keys, answers);
    }

    fn settle(&self) {
        self.0.settle();
    }

    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}
