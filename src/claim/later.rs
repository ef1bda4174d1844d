//! Claims as futures.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::ghost::let_through;
use super::{Claim, ClaimGuard, CommitError, Manner, Outcome, ProcessError, granted, into_claim};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::Result;

/// [`super::claim_now`] as a future. A grant that is not told is dropped, which gives it back.
pub(crate) async fn claim_later(
    engine: Arc<Engine>,
    digest: Digest,
    manner: Manner,
) -> Result<Claim> {
    let tell = |attempt| into_claim(&engine, attempt, manner);
    let said = Arc::clone(&engine).claim_later(digest, manner.on_outage, tell).await;
    match manner.shadow {
        true => manner.shadow_claim(&engine, digest, said),
        false => said,
    }
}

impl ClaimGuard {
    /// [`ClaimGuard::commit`] as a future. From its first poll on the commit goes on, whatever becomes of
    /// the future: the work is done, so it had better be marked. Dropped before that it abandons the claim,
    /// as dropping the guard does; afterwards nothing is abandoned.
    ///
    /// Ready at once where nothing waits for the disk or an authority; needs no particular runtime.
    ///
    /// # Errors
    /// Those of [`ClaimGuard::commit`].
    #[expect(clippy::manual_async_fn, reason = "what it promises is written down")]
    pub fn commit_async(
        self,
    ) -> impl Future<Output = std::result::Result<(), CommitError>> + Send + 'static {
        async move {
            if self.is_ghost() {
                return Ok(());
            }
            self.settled.store(true, Ordering::Relaxed);
            match Arc::clone(&self.engine).commit_later(self.held).await {
                Ok(()) => Ok(()),
                Err(error) => self.not_committed(error),
            }
        }
    }

    /// [`ClaimGuard::renew`] as a future, which does not borrow the guard. Dropped before it is ready, the
    /// lease may begin anew or not. Ready at once where nothing waits for the disk or an authority.
    ///
    /// # Errors
    /// Those of [`ClaimGuard::renew`].
    pub fn renew_async(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (engine, held, shadow) = (Arc::clone(&self.engine), self.held, self.shadow);
        let (token, is_ghost) = (self.public_token, self.is_ghost());
        async move {
            if is_ghost {
                return Ok(());
            }
            let renewed = Arc::clone(&engine).renew_later(held).await;
            let_through(&engine, shadow, token, renewed, ())
        }
    }

    /// Commits a claim that others may name still.
    async fn commit_named(&self) -> Result<()> {
        if self.is_ghost() {
            return Ok(());
        }
        self.settled.store(true, Ordering::Relaxed);
        let committed = Arc::clone(&self.engine).commit_later(self.held).await;
        self.or_let_through(committed, ())
    }

    /// Gives back a claim that others may name still.
    fn give_back(&self) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.engine.abandon(self.held.digest, self.held.token);
        }
    }
}

/// Hands out a panic as a value.
struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = std::result::Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Whoever gets the panic drops the future.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// [`super::process_once`] as a future.
pub(crate) async fn process_later<T, E, F>(
    claimed: impl Future<Output = Result<Claim>>,
    work: impl FnOnce(Arc<ClaimGuard>) -> F,
) -> std::result::Result<Outcome<T>, ProcessError<E>>
where
    F: Future<Output = std::result::Result<T, E>>,
{
    let guard = match granted(claimed.await) {
        Ok(guard) => Arc::new(guard),
        Err(outcome) => return outcome,
    };
    let named = Arc::clone(&guard);
    let worked = Caught(Box::pin(async move { work(named).await })).await;
    match worked {
        Ok(Ok(value)) => match guard.commit_named().await {
            Ok(()) => Ok(Outcome::Done(value)),
            Err(error) => Ok(Outcome::Uncommitted { value, error }),
        },
        Ok(Err(error)) => {
            guard.give_back();
            Err(ProcessError::Work(error))
        }
        Err(panic) => {
            guard.give_back();
            resume_unwind(panic)
        }
    }
}
