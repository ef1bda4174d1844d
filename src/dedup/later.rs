//! The calls that may wait, as futures.

use std::sync::Arc;

use super::Scope;
use super::legacy::{Before, merged};
use crate::claim::{self, Claim, ClaimGuard, Outcome, ProcessError};
use crate::digest::Digest;
use crate::error::Result;
use crate::verdict::{BatchError, Verdict};

/// # Futures
///
/// The twins of calls that may wait share all of their logic. Their futures are `Send + 'static`, need no
/// particular runtime, do nothing before the first poll, and are ready in it where the answer is local: a
/// key that is decided here, at any durability but [`crate::Durability::Sync`]; else threads of the store
/// wait in their place. A future that is dropped before it is ready is an `Err`: what it had marked or
/// claimed is taken back, so that asking again gives the answer that it should have given. At an authority
/// that is done by the token of the call, as after [`crate::Error::Undecided`]. They do not keep the store
/// open: closed meanwhile, it is [`crate::Error::Closed`].
impl Scope {
    /// [`Scope::observe`] as a future.
    ///
    /// # Errors
    /// Those of [`Scope::observe`].
    pub fn observe_async<K: AsRef<[u8]>>(
        &self,
        key: K,
    ) -> impl Future<Output = Result<Verdict>> + Send + 'static + use<K> {
        let before = Before::of(self, &[key.as_ref()]);
        let (engine, digest, manner) = (Arc::clone(self.engine()), self.digest(key), self.manner);
        async move {
            let said = match before.seen(&engine).await {
                Ok(seen) if seen.contains(&true) => Ok(Verdict::Duplicate),
                Ok(_) => Arc::clone(&engine).observe_later(digest, manner.on_outage).await,
                Err(error) => Err(error),
            };
            manner.verdict(&engine, said)
        }
    }

    /// [`Scope::observe_batch`] as a future.
    ///
    /// # Errors
    /// Those of [`Scope::observe_batch`].
    pub fn observe_batch_async<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> impl Future<Output = Result<Vec<Verdict>, BatchError>> + Send + 'static + use<K> {
        let before = Before::of(self, keys);
        let digests: Vec<Digest> = keys.iter().map(|key| self.digest(key)).collect();
        let (engine, manner) = (Arc::clone(self.engine()), self.manner);
        async move {
            let policy = manner.on_outage;
            let said = match before.seen(&engine).await {
                Ok(seen) => {
                    let unseen = |(at, _): &(usize, &Digest)| seen.get(*at) != Some(&true);
                    let since = digests.iter().enumerate().filter(unseen);
                    let since: Vec<Digest> = since.map(|(_, digest)| *digest).collect();
                    merged(Arc::clone(&engine).observe_batch_later(since, policy).await, &seen)
                }
                Err(error) => Err(BatchError::new(vec![None; digests.len()], error)),
            };
            manner.batch_later(&engine, &digests, said).await
        }
    }

    /// [`Scope::claim`] as a future.
    ///
    /// # Errors
    /// Those of [`Scope::claim`].
    pub fn claim_async<K: AsRef<[u8]>>(
        &self,
        key: K,
    ) -> impl Future<Output = Result<Claim>> + Send + 'static + use<K> {
        let before = Before::of(self, &[key.as_ref()]);
        let (engine, digest, manner) = (Arc::clone(self.engine()), self.digest(key), self.manner);
        async move {
            let said = match before.seen(&engine).await {
                Ok(seen) if seen.contains(&true) => Ok(Claim::Duplicate { result: None }),
                Ok(_) => return claim::claim_later(engine, digest, manner).await,
                Err(error) => Err(error),
            };
            manner.shadowed(&engine, digest, said)
        }
    }

    /// [`Scope::process_once`] as a future: claims `key`, awaits `work`, and commits when that is `Ok`. When
    /// it is `Err` or panics, and when the future is dropped before the work is done, the claim is abandoned
    /// and a redelivery is granted at once. Once the work is done, the commit goes on whatever becomes of
    /// the future.
    ///
    /// The work may give its [`ClaimGuard`] to others; a clone that outlives the work ends nothing.
    ///
    /// # Errors
    /// Those of [`Scope::process_once`].
    ///
    /// # Panics
    /// When `work` does; the panic goes on after the claim was abandoned.
    pub fn process_once_async<K, T, E, W, F>(
        &self,
        key: K,
        work: W,
    ) -> impl Future<Output = Result<Outcome<T>, ProcessError<E>>> + Send + 'static + use<K, T, E, W, F>
    where
        K: AsRef<[u8]>,
        T: Send + 'static,
        E: Send + 'static,
        W: FnOnce(Arc<ClaimGuard>) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        claim::process_later(self.claim_async(key), work)
    }
}
