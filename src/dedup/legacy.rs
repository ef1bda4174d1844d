//! Keys that something else has marked before the store decided: they are duplicates of what it has not
//! seen, until it knows of a whole window by itself.

use std::sync::Arc;

use super::Scope;
use crate::claim::{self, Claim, ClaimOptions, Manner};
use crate::digest::Digest;
use crate::engine::{Engine, Named};
use crate::error::Result;
use crate::verdict::{BatchError, Verdict};

impl Scope {
    fn named(&self, key: &[u8]) -> Named {
        (self.digest(key), key.into())
    }

    /// Whether the key was marked before. Costs nothing where there is no before.
    #[inline]
    pub(super) fn seen_before(&self, key: &[u8]) -> Result<bool> {
        if self.manner.legacy { self.ask_before(key) } else { Ok(false) }
    }

    #[cold]
    #[inline(never)]
    fn ask_before(&self, key: &[u8]) -> Result<bool> {
        if !self.engine().asks_legacy() {
            return Ok(false);
        }
        let seen = self.engine().legacy_seen(&[self.named(key)], self.manner.on_outage)?;
        Ok(seen.contains(&true))
    }

    /// What is answered to a claim of a key that was marked before; `None` for all others.
    #[cold]
    #[inline(never)]
    pub(super) fn claimed_before(&self, key: &[u8]) -> Option<Result<Claim>> {
        let said = match self.seen_before(key) {
            Ok(false) => return None,
            Ok(true) => Ok(Claim::Duplicate { result: None }),
            Err(error) => Err(error),
        };
        Some(self.manner.shadowed(self.engine(), self.digest(key), said))
    }

    /// Which keys of a batch were marked before; none where nothing has to be asked.
    pub(super) fn batch_before<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<bool>> {
        if !self.manner.legacy || !self.engine().asks_legacy() {
            return Ok(Vec::new());
        }
        let named: Vec<Named> = keys.iter().map(|key| self.named(key.as_ref())).collect();
        self.engine().legacy_seen(&named, self.manner.on_outage)
    }

    /// The digests that were not marked before, in their order.
    pub(super) fn digests_since<'a, K: AsRef<[u8]>>(
        &'a self,
        keys: &'a [K],
        seen: &'a [bool],
    ) -> impl Iterator<Item = Digest> + 'a {
        let since = keys.iter().enumerate().filter(|(at, _)| seen.get(*at) != Some(&true));
        since.map(|(_, key)| self.digest(key))
    }

    pub(super) fn observe_batch_before<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), BatchError> {
        verdicts.clear();
        let none = |error| BatchError::new(vec![None; keys.len()], error);
        let seen = self.batch_before(keys).map_err(none)?;
        let digests: Vec<Digest> = self.digests_since(keys, &seen).collect();
        let policy = self.manner.on_outage;
        let said = self.engine().observe_batch(digests.into_iter(), verdicts, policy);
        *verdicts = merged(said.map(|()| std::mem::take(verdicts)), &seen)?;
        Ok(())
    }

    pub(super) fn claim_batch_before<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Claim>> {
        let (engine, manner, options) = (self.engine(), self.manner, ClaimOptions::default());
        let all: Vec<Digest> = keys.iter().map(|key| self.digest(key)).collect();
        let seen = match self.batch_before(keys) {
            Ok(seen) => seen,
            Err(error) => {
                let none = keys.iter().map(|_| None).collect();
                return manner.shadowed_batch(engine, none, &all, error);
            }
        };
        let since: Vec<Digest> = self.digests_since(keys, &seen).collect();
        let mut claims = claim::claim_batch(engine, &since, &options, manner)?.into_iter();
        let all = all.into_iter().enumerate().map(|(at, digest)| match seen.get(at) {
            Some(true) => {
                let before = Ok(Claim::Duplicate { result: None });
                manner.shadowed(engine, digest, before)
            }
            _ => claims.next().ok_or(crate::error::Error::Closed),
        });
        all.collect()
    }
}

/// The verdicts of a batch, of those of its keys that were not marked before.
pub(super) fn merged(
    said: Result<Vec<Verdict>, BatchError>,
    seen: &[bool],
) -> Result<Vec<Verdict>, BatchError> {
    if seen.is_empty() {
        return said;
    }
    fn weave<T>(of: Vec<T>, seen: &[bool], duplicate: impl Fn() -> T) -> Vec<T> {
        let mut of = of.into_iter();
        let woven = seen.iter().map(|seen| if *seen { Some(duplicate()) } else { of.next() });
        woven.flatten().collect()
    }
    match said {
        Ok(verdicts) => Ok(weave(verdicts, seen, || Verdict::Duplicate)),
        Err(failed) => {
            let (parts, error) = failed.into_parts();
            Err(BatchError::new(weave(parts, seen, || Some(Verdict::Duplicate)), error))
        }
    }
}

/// What a future has to ask of keys before it does anything else.
pub(super) struct Before {
    named: Vec<Named>,
    manner: Manner,
}

impl Before {
    pub(super) fn of<K: AsRef<[u8]>>(scope: &Scope, keys: &[K]) -> Self {
        let named = match scope.manner.legacy {
            true => keys.iter().map(|key| scope.named(key.as_ref())).collect(),
            false => Vec::new(),
        };
        Before { named, manner: scope.manner }
    }

    /// Which of the keys were marked before; none where nothing has to be asked.
    pub(super) async fn seen(self, engine: &Arc<Engine>) -> Result<Vec<bool>> {
        if self.named.is_empty() || !engine.asks_legacy() {
            return Ok(Vec::new());
        }
        engine.legacy_seen_later(self.named, self.manner.on_outage).await
    }
}
