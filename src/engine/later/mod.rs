//! Calls as futures: the same calls, of which somebody else does the waiting.
//!
//! What is decided here is decided in the poll, by the call that a thread would make ([`deferral`]). What
//! waits for the disk or an authority is done by threads of the store ([`helpers`]), so the futures need no
//! runtime. A future that is dropped before it is ready was told nothing: what was made for it is taken back
//! before its drop ends ([`ticket`], [`Engine::take_back_mark`]). Commits are not: they go on.

pub(super) mod deferral;
pub(super) mod helpers;
mod reply;
pub(super) mod ticket;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Engine;
use super::claims::{Attempt, Wish};
use super::exclusive::Way;
use super::shared::{Held, Said, Shared, assemble, attempt, first_occurrences, verdict};
use crate::authority::RowOp;
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gather::{Failure, Step};
use crate::shard::Call;
use crate::shard::asked::Unsure;
use crate::verdict::{BatchError, Verdict};
use deferral::without_waiting;
use helpers::{Commit, Decide, Job};
use reply::{Promise, Reply, reply};
use ticket::{Made, Ticket};

/// Marks that were made, and are told when they are on the disk. Takes them back if nobody is told.
struct Untold {
    engine: Arc<Engine>,
    digests: Vec<Digest>,
    epoch: u64,
}

impl Drop for Untold {
    fn drop(&mut self) {
        for digest in &self.digests {
            self.engine.take_back_mark(*digest, self.epoch);
        }
    }
}

/// Keys that an authority decides.
struct Deciding {
    engine: Arc<Engine>,
    ticket: Arc<Ticket>,
    reply: Reply<Vec<Option<Result<Said>>>>,
}

impl Future for Deciding {
    type Output = Result<Vec<Option<Result<Said>>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let said = Pin::new(&mut self.reply).poll(context);
        if let Poll::Ready(Ok(_)) = said {
            self.ticket.told();
        }
        said
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        for made in self.ticket.leave() {
            self.engine.unmake(&made);
        }
    }
}

impl Engine {
    pub(crate) async fn observe_later(
        self: Arc<Self>,
        digest: Digest,
        policy: OnOutage,
    ) -> Result<Verdict> {
        let mut assumes = false;
        loop {
            match self.way(&[digest], assumes)? {
                Way::Here => {
                    let (said, epoch) = without_waiting(|| self.observe(digest, policy));
                    let new = matches!(said, Ok(Verdict::New)).then_some(digest);
                    self.told(epoch, new.into_iter().collect()).await?;
                    return said;
                }
                Way::Asks => assumes = self.admitted_later(vec![digest], policy).await?,
                Way::Shared => {
                    let said = self.decided_later(vec![digest], false, policy).await?;
                    return said
                        .into_iter()
                        .next()
                        .unwrap_or(Err(Error::Closed))
                        .and_then(|said| verdict(&said));
                }
            }
        }
    }

    pub(crate) async fn observe_batch_later(
        self: Arc<Self>,
        digests: Vec<Digest>,
        policy: OnOutage,
    ) -> Result<Vec<Verdict>, BatchError> {
        let none = |error| BatchError::new(vec![None; digests.len()], error);
        let mut assumes = false;
        loop {
            match self.way(&digests, assumes).map_err(none)? {
                Way::Here => {
                    let mut verdicts = Vec::new();
                    let (said, epoch) = without_waiting(|| {
                        self.observe_batch(digests.iter().copied(), &mut verdicts, policy)
                    });
                    let said = said.map(|()| verdicts);
                    let new = marked(&digests, &said);
                    self.told(epoch, new).await.map_err(none)?;
                    return said;
                }
                Way::Asks => {
                    let admitted = self.admitted_later(digests.clone(), policy).await;
                    assumes = admitted.map_err(none)?;
                }
                Way::Shared => {
                    let (firsts, first_of) = first_occurrences(&digests);
                    let said = self.decided_later(firsts, false, policy).await.map_err(none)?;
                    let said = said.into_iter().map(Some).collect();
                    let mut verdicts = Vec::new();
                    let assembled = assemble(&self, said, &first_of, &mut verdicts);
                    return assembled.map(|()| verdicts);
                }
            }
        }
    }

    /// Whoever is given an attempt gives it back where it is not told: `tell` makes of it what does that.
    pub(crate) async fn claim_later<T>(
        self: Arc<Self>,
        digest: Digest,
        policy: OnOutage,
        tell: impl Fn(Attempt) -> T,
    ) -> Result<T> {
        let mut assumes = false;
        loop {
            match self.way(&[digest], assumes)? {
                Way::Here => {
                    let wish = Wish::default();
                    let (said, epoch) = without_waiting(|| self.claim(digest, None, wish, policy));
                    let told = said.map(&tell)?;
                    self.told(epoch, Vec::new()).await?;
                    return Ok(told);
                }
                Way::Asks => assumes = self.admitted_later(vec![digest], policy).await?,
                Way::Shared => {
                    let said = self.decided_later(vec![digest], true, policy).await?;
                    let said = said.into_iter().next().unwrap_or(Err(Error::Closed))?;
                    return Ok(tell(attempt(said)));
                }
            }
        }
    }

    /// Goes on, whatever becomes of the future.
    pub(crate) async fn commit_later(self: Arc<Self>, held: Held) -> Result<()> {
        match self.way(&[], false)? {
            Way::Here => {
                let (committed, epoch) = without_waiting(|| self.commit(held));
                committed.and(self.told(epoch, Vec::new()).await)
            }
            Way::Asks => self.called_later(move |engine| engine.commit(held)).await?,
            Way::Shared => {
                let (promise, reply) = reply();
                let (engine, asked) = (Arc::clone(&self), Instant::now());
                self.submit(Job::Commit(Commit { engine, held, asked, promise }))?;
                reply.await?
            }
        }
    }

    pub(crate) async fn renew_later(self: Arc<Self>, held: Held) -> Result<()> {
        match self.way(&[], false)? {
            Way::Here => {
                let (renewed, epoch) = without_waiting(|| self.renew(held));
                renewed.and(self.told(epoch, Vec::new()).await)
            }
            Way::Asks | Way::Shared => self.called_later(move |engine| engine.renew(held)).await?,
        }
    }

    /// Waits until an epoch of the log is on the disk; the marks of the digests, which were made in it,
    /// are taken back if nobody is told of them.
    async fn told(self: &Arc<Self>, epoch: u64, digests: Vec<Digest>) -> Result<()> {
        if epoch == 0 {
            return Ok(());
        }
        let mut untold = Untold { engine: Arc::clone(self), digests, epoch };
        let synced = self.called_later(move |engine| engine.synced(epoch)).await;
        if let Ok(Ok(())) = synced {
            untold.digests.clear();
        }
        synced?
    }

    /// Has a helper make a call that may wait.
    pub(super) async fn called_later<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T> {
        let (promise, reply): (Promise<T>, Reply<T>) = reply();
        let engine = Arc::clone(self);
        self.submit(Job::Call(Box::new(move || promise.keep(call(&engine)))))?;
        reply.await
    }

    fn submit(&self, job: Job) -> Result<()> {
        let path = || self.ledger.storage().path("");
        self.helpers.submit(job).map_err(|e| Error::io("starting a thread for", path(), e))
    }

    /// Has what stands in the way of answering from here alone done; says whether it was not, and the
    /// policy for outages lets the call go on all the same.
    async fn admitted_later(
        self: &Arc<Self>,
        digests: Vec<Digest>,
        policy: OnOutage,
    ) -> Result<bool> {
        self.called_later(move |engine| {
            engine.admit(&digests, policy)?;
            Ok(matches!(engine.way(&digests, false)?, Way::Asks))
        })
        .await?
    }

    /// Has an authority decide what is not known here of digests that are all different.
    async fn decided_later(
        self: &Arc<Self>,
        digests: Vec<Digest>,
        claims: bool,
        policy: OnOutage,
    ) -> Result<Vec<Result<Said>>> {
        let (said, epoch) = without_waiting(|| self.decided_here(&digests, claims, policy));
        self.told(epoch, Vec::new()).await?;
        let unknown = |said: &Option<Result<Said>>| said.is_none();
        let open: Vec<Digest> =
            digests.iter().zip(&said).filter(|(_, s)| unknown(s)).map(|(d, _)| *d).collect();
        let mut asked = Vec::new().into_iter();
        if !open.is_empty() {
            let (promise, reply) = reply();
            let ticket = Arc::new(Ticket::default());
            let engine = Arc::clone(self);
            let deciding = Deciding { engine, ticket: Arc::clone(&ticket), reply };
            let (engine, asked_at) = (Arc::clone(self), Instant::now());
            self.submit(Job::Decide(Decide {
                engine,
                digests: open,
                claims,
                policy,
                ticket,
                asked: asked_at,
                promise,
            }))?;
            asked = deciding.await?.into_iter();
        }
        let all = said.into_iter().map(|here| match here {
            Some(here) => here,
            None => asked.next().flatten().unwrap_or(Err(Error::Closed)),
        });
        Ok(all.collect())
    }

    /// Waits for an epoch of the log, as the call would have.
    fn synced(&self, epoch: u64) -> Result<()> {
        self.tools.log.wait(epoch, self).and_then(|()| self.still_owns())
    }

    /// How long one round trip may take.
    pub(super) fn authority_deadline(&self) -> Duration {
        let terms = self.config.shared.as_ref().map(|terms| terms.deadline);
        terms.unwrap_or(Duration::MAX)
    }

    /// The error of who had no turn within its deadline.
    pub(super) fn came_too_late(&self) -> Error {
        let failure = Failure::no_turn();
        self.shared().map_or(Error::Closed, |shared| shared.error(&failure, false))
    }

    /// Takes a mark back of which nobody was told, and has that written.
    fn take_back_mark(&self, digest: Digest, epoch: u64) {
        let (taken, epoch) = without_waiting(|| {
            let call = self.begin_logged()?;
            self.with_call(call, digest, |shard, call| {
                // One that did not reach the disk is gone already, and may be another's by now.
                if !self.stands(shard, digest, epoch) {
                    return Ok(false);
                }
                let forgotten = shard.forget(&self.tools, call, digest)?;
                if forgotten {
                    shard.new = shard.new.saturating_sub(1);
                    shard.counters.forgotten = shard.counters.forgotten.saturating_sub(1);
                }
                Ok(forgotten)
            })
        });
        self.claims.changed();
        if matches!(taken, Ok(true)) {
            self.forget_at_authority(digest);
        }
        if let (1.., Some(me)) = (epoch, self.me.upgrade()) {
            // Without it, it is written with what is marked next.
            let _ = self.submit(Job::Call(Box::new(move || drop(me.synced(epoch)))));
        }
    }

    /// Takes back what an authority has decided for a future that was told nothing of it. Never waits.
    fn unmake(&self, made: &Made) {
        let Some(shared) = self.shared() else { return };
        let Made { digest, token, sent_ns, claim } = *made;
        if let Some(claim) = claim {
            return self.abandon(digest, claim);
        }
        // This store asks with that token again; others need not wait for it.
        let unsure = Unsure { observed: true, token, sent_ns, last_ns: self.time.now() };
        let _ = without_waiting(|| {
            let mut call = Call::default();
            let taken = self.enter(self.shard_of(digest)).and_then(|mut shard| {
                let taken = shard.forget_elsewhere(&self.tools, &mut call, digest);
                shard.new = shard.new.saturating_sub(1);
                shard.unsettle(&self.tools, &mut call, digest, unsure);
                taken
            });
            taken.and(self.finish(call))
        });
        self.withdraw_there(shared, digest, token);
        self.claims.changed();
    }

    /// Has a row deleted that was made with a token, without waiting for it.
    pub(super) fn withdraw_there(
        &self,
        shared: &Shared,
        digest: Digest,
        token: crate::authority::Token,
    ) {
        shared.post(vec![Step::new(digest.into(), RowOp::Abandon { token })]);
    }
}

/// The keys of a batch that were marked.
fn marked(digests: &[Digest], said: &Result<Vec<Verdict>, BatchError>) -> Vec<Digest> {
    let is_new = |verdict: &Verdict| *verdict == Verdict::New;
    let new: Vec<bool> = match said {
        Ok(verdicts) => verdicts.iter().map(is_new).collect(),
        Err(failed) => failed.verdicts().iter().map(|v| v.as_ref().is_some_and(is_new)).collect(),
    };
    digests.iter().zip(new).filter(|(_, new)| *new).map(|(digest, _)| *digest).collect()
}
