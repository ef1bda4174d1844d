//! Shadow mode: guards of claims that were not granted, and let their message through all the same.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Claim, ClaimGuard, CommitError, Manner};
use crate::authority::{Dialect, Statement};
use crate::digest::Digest;
use crate::engine::{Engine, Held};
use crate::error::{Error, Result};
use crate::shadow::{Shadowed, is_misuse};

impl Manner {
    /// What is answered in shadow mode where the store says `said` of a claim of `digest`.
    #[cold]
    #[inline(never)]
    pub(super) fn shadow_claim(
        self,
        engine: &Arc<Engine>,
        digest: Digest,
        said: Result<Claim>,
    ) -> Result<Claim> {
        let would_be = match said {
            Ok(Claim::Granted(guard)) => return Ok(Claim::Granted(guard)),
            Ok(Claim::Duplicate { .. }) => Shadowed::Duplicate,
            Ok(Claim::InFlight { lease_left }) => Shadowed::InFlight { lease_left },
            Ok(Claim::Conflict {}) => Shadowed::Conflict,
            Ok(Claim::TooOld) => Shadowed::TooOld,
            Err(error) if is_misuse(&error) => return Err(error),
            Err(error) => Shadowed::of(error),
        };
        Ok(self.ghost(engine, digest, would_be))
    }

    /// What is answered where something said `said` before the store was asked.
    pub(crate) fn shadowed(
        self,
        engine: &Arc<Engine>,
        digest: Digest,
        said: Result<Claim>,
    ) -> Result<Claim> {
        if self.shadow { self.shadow_claim(engine, digest, said) } else { said }
    }

    /// The same for a batch, none of which was decided because of `error`.
    pub(crate) fn shadowed_batch(
        self,
        engine: &Arc<Engine>,
        none: Vec<Option<Claim>>,
        digests: &[Digest],
        error: Error,
    ) -> Result<Vec<Claim>> {
        match self.shadow && !is_misuse(&error) {
            true => Ok(self.claims(engine, none, digests, error)),
            false => Err(error),
        }
    }

    /// Many claims, of which `None` was not decided because of `error`.
    pub(super) fn claims(
        self,
        engine: &Arc<Engine>,
        said: Vec<Option<Claim>>,
        digests: &[Digest],
        error: Error,
    ) -> Vec<Claim> {
        let failed = Shadowed::of(error);
        let all = said.into_iter().zip(digests);
        all.map(|(said, digest)| {
            said.unwrap_or_else(|| self.ghost(engine, *digest, failed.clone()))
        })
        .collect()
    }

    fn ghost(self, engine: &Arc<Engine>, digest: Digest, would_be: Shadowed) -> Claim {
        engine.let_through().count(&would_be);
        let token = engine.ghost_token();
        Claim::Granted(ClaimGuard {
            engine: Arc::clone(engine),
            held: Held { digest, token, on_outage: self.on_outage },
            public_token: token,
            shadow: true,
            ghost: Some(Box::new(would_be)),
            settled: AtomicBool::new(true),
        })
    }
}

impl ClaimGuard {
    /// In shadow mode ([`crate::Builder::shadow`]): why the message would not have been worked on. `None`
    /// for a claim that was granted in earnest.
    ///
    /// Whoever has such a guard holds nothing. Committing, renewing and abandoning it does nothing; its
    /// token is greater than those of the claims before, save in an outage.
    #[must_use]
    pub fn shadowed(&self) -> Option<&Shadowed> {
        self.ghost.as_deref()
    }

    pub(super) fn is_ghost(&self) -> bool {
        self.ghost.is_some()
    }

    /// In shadow mode no failure of the store keeps anybody from going on; it is counted.
    pub(super) fn or_let_through<T>(&self, said: Result<T>, instead: T) -> Result<T> {
        let_through(&self.engine, self.shadow, self.public_token, said, instead)
    }

    /// A commit that failed.
    #[cold]
    pub(super) fn not_committed(self, error: Error) -> std::result::Result<(), CommitError> {
        match self.or_let_through(Err(error), ()) {
            Ok(()) => Ok(()),
            Err(error) => Err(CommitError::new(self, error)),
        }
    }

    /// The statement of a commit; in shadow mode one that changes nothing, if there is none.
    pub(super) fn statement(&self, dialect: Dialect) -> Result<Statement> {
        if self.is_ghost() {
            return self.engine.idle_statement(self.held.digest, dialect);
        }
        match self.engine.commit_statement(self.held, dialect) {
            Err(error) if self.shadow && !is_misuse(&error) => {
                self.engine.let_through().count_error(&self.own(error));
                self.engine.idle_statement(self.held.digest, dialect)
            }
            statement => statement,
        }
    }
}

/// What a guard with this token is told: in shadow mode no failure but a wrong call.
pub(super) fn let_through<T>(
    engine: &Engine,
    shadow: bool,
    token: u64,
    said: Result<T>,
    instead: T,
) -> Result<T> {
    let error = match said {
        Ok(said) => return Ok(said),
        Err(Error::LeaseLost { .. }) => Error::LeaseLost { token },
        Err(error) => error,
    };
    if !shadow || is_misuse(&error) {
        return Err(error);
    }
    engine.let_through().count_error(&error);
    Ok(instead)
}
