//! Shadow mode: what the calls of a scope answer in place of what the store says.

use std::sync::Arc;

use super::Scope;
use crate::claim::Manner;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::Result;
use crate::shadow::{Shadowed, is_misuse};
use crate::verdict::{BatchError, Seen, Verdict};

impl Scope {
    /// The same scope with shadow mode on or off, whatever [`crate::Builder::shadow`] says: a topic can be
    /// cut over before the others, and `shadow(false)` in a store that is in shadow tells what the store
    /// says of a key that the caller decides about in another way.
    ///
    /// ```
    /// # use onceonly::{Dedup, Verdict};
    /// # let window = std::time::Duration::from_secs(3600);
    /// let dedup = Dedup::builder().window(window).shadow(true).in_memory()?;
    /// assert_eq!(dedup.observe("order-1001")?, Verdict::New);
    /// assert_eq!(dedup.observe("order-1001")?, Verdict::New); // let through,
    /// assert_eq!(dedup.stats().shadow.duplicate, 1);          // and counted
    /// let says = dedup.shadow(false);
    /// assert_eq!(says.observe("order-1001")?, Verdict::Duplicate);
    /// # Ok::<(), onceonly::Error>(())
    /// ```
    #[must_use]
    pub fn shadow(&self, on: bool) -> Scope {
        let manner = Manner { shadow: on, ..self.manner };
        Scope { manner, ..self.clone() }
    }

    /// [`Scope::observe`], telling what the store says whether or not shadow mode is on. What is not
    /// `New` counts as let through where it is: the caller goes on with the message.
    ///
    /// # Errors
    /// Those of [`Scope::observe`] without shadow mode.
    pub fn observe_shadow(&self, key: impl AsRef<[u8]>) -> Result<Verdict> {
        let said = match self.seen_before(key.as_ref()) {
            Ok(false) => self.engine().observe(self.digest(key), self.manner.on_outage),
            Ok(true) => Ok(Verdict::Duplicate),
            Err(error) => Err(error),
        };
        if self.manner.shadow {
            match &said {
                Ok(verdict) => verdict_would_be(*verdict, self.engine()),
                Err(error) if is_misuse(error) => {}
                Err(error) => self.engine().let_through().count_error(error),
            }
        }
        said
    }
}

fn verdict_would_be(verdict: Verdict, engine: &Engine) {
    match verdict {
        Verdict::New => {}
        Verdict::Duplicate => engine.let_through().count(&Shadowed::Duplicate),
        Verdict::TooOld => engine.let_through().count(&Shadowed::TooOld),
    }
}

impl Manner {
    /// What is answered where the store says `said`.
    #[inline]
    pub(super) fn verdict(self, engine: &Engine, said: Result<Verdict>) -> Result<Verdict> {
        match said {
            Ok(Verdict::New) => said,
            _ if self.shadow => shadow_verdict(engine, said),
            _ => said,
        }
    }

    pub(super) fn seen(self, engine: &Engine, said: Result<Seen>) -> Result<Seen> {
        if !self.shadow {
            return said;
        }
        let would_be = match said {
            Ok(Seen::New) => return said,
            Ok(Seen::Duplicate) => Shadowed::Duplicate,
            Ok(Seen::Conflict) => Shadowed::Conflict,
            Err(error) if is_misuse(&error) => return Err(error),
            Err(error) => Shadowed::of(error),
        };
        engine.let_through().count(&would_be);
        Ok(Seen::New)
    }

    /// A question that marks nothing: where it is a reason to skip the message, it is not.
    pub(super) fn found(self, said: Result<bool>) -> Result<bool> {
        match said {
            Err(error) if !self.shadow || is_misuse(&error) => Err(error),
            Err(_) => Ok(false),
            Ok(found) => Ok(found && !self.shadow),
        }
    }

    /// The verdicts of a batch. What it left undecided because of a claim is decided by `one`, key by
    /// key: without shadow mode the caller would come with it again.
    pub(super) fn batch(
        self,
        engine: &Engine,
        said: Result<(), BatchError>,
        verdicts: &mut Vec<Verdict>,
        one: impl Fn(usize) -> Result<Verdict>,
    ) -> Result<(), BatchError> {
        if !self.shadow {
            return said;
        }
        let parts = match said {
            Ok(()) => verdicts.drain(..).map(Some).collect(),
            Err(failed) if is_misuse(failed.error()) => return Err(failed),
            Err(failed) => failed.into_parts().0,
        };
        verdicts.clear();
        for (at, part) in parts.into_iter().enumerate() {
            match part {
                Some(verdict) => verdict_would_be(verdict, engine),
                None => drop(shadow_verdict(engine, one(at))),
            }
            verdicts.push(Verdict::New);
        }
        Ok(())
    }
}

impl Manner {
    /// [`Manner::batch`] of a future.
    pub(super) async fn batch_later(
        self,
        engine: &Arc<Engine>,
        digests: &[Digest],
        said: Result<Vec<Verdict>, BatchError>,
    ) -> Result<Vec<Verdict>, BatchError> {
        if !self.shadow {
            return said;
        }
        let parts: Vec<Option<Verdict>> = match said {
            Ok(verdicts) => verdicts.into_iter().map(Some).collect(),
            Err(failed) if is_misuse(failed.error()) => return Err(failed),
            Err(failed) => failed.into_parts().0,
        };
        for (part, digest) in parts.iter().zip(digests) {
            let said = match part {
                Some(verdict) => Ok(*verdict),
                None => Arc::clone(engine).observe_later(*digest, self.on_outage).await,
            };
            let _ = shadow_verdict(engine, said);
        }
        Ok(vec![Verdict::New; parts.len()])
    }
}

#[cold]
#[inline(never)]
fn shadow_verdict(engine: &Engine, said: Result<Verdict>) -> Result<Verdict> {
    match said {
        Ok(verdict) => verdict_would_be(verdict, engine),
        Err(error) if is_misuse(&error) => return Err(error),
        Err(error) => engine.let_through().count_error(&error),
    }
    Ok(Verdict::New)
}
