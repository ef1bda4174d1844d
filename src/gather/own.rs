//! What the only writer of a space asks for: to be the owner, to write, to read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::Failure;
use super::call::Worker;
use super::space::Space;
use crate::authority::{
    Acquire, Acquired, Append, Appended, Authority, AuthorityError, Bucket, Chunk, Progress,
    Result as Told, SliceInfo, StoredChunk, Token,
};

/// What an owner writes in one call, and how far it has come then.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) epoch: u64,
    pub(crate) holder: Token,
    pub(crate) lease: Duration,
    pub(crate) progress: Progress,
    pub(crate) chunks: Vec<Chunk>,
    /// Digests in the chunks.
    pub(crate) keys: usize,
}

/// What an owner wants of its authority.
pub(crate) enum Want {
    Nothing,
    Append(Arc<Outgoing>),
    /// To know whether it is the server that it was.
    Look,
    /// The server has lost who owns the space.
    Acquire(Acquire),
}

/// How an owner gives its space back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(crate) epoch: u64,
    pub(crate) holder: Token,
    /// How far the record has come, where not all is written; `None` where all is.
    pub(crate) unwritten: Option<Progress>,
}

/// Where an answer goes.
pub(super) type Answer<T> = Sender<Result<T, Failure>>;

pub(super) enum Owning {
    Acquire(Arc<Space>, Box<Acquire>, Answer<Acquired>),
    Leave(Arc<Space>, Leaving, Answer<()>),
    Slices(Arc<Space>, Answer<Vec<SliceInfo>>),
    Read(Arc<Space>, Vec<Bucket>, Answer<Vec<Vec<StoredChunk>>>),
    /// Whatever there is to write, at least to be heard of.
    Write(Arc<Space>, Answer<()>),
}

impl Worker {
    pub(super) fn serve_owner(&mut self, request: Owning) {
        match request {
            Owning::Acquire(space, request, reply) => {
                let _ = reply.try_send(self.acquire(&space, &request));
            }
            Owning::Leave(space, leaving, reply) => {
                let _ = reply.try_send(self.leave(&space, leaving));
            }
            Owning::Slices(space, reply) => {
                let name = Arc::clone(&space.terms.space);
                let _ = reply.try_send(self.twice(&space, 0, |a, until| a.slices(&name, until)));
            }
            Owning::Read(space, buckets, reply) => {
                let _ = reply.try_send(self.read(&space, &buckets));
            }
            Owning::Write(space, reply) => {
                let _ = reply.try_send(self.write(&[space], true));
            }
        }
    }

    /// A call that may be made again, and is when it fails the first time.
    fn twice<T>(
        &mut self,
        space: &Space,
        rows: usize,
        call: impl Fn(&dyn Authority, Instant) -> Told<T>,
    ) -> Result<T, Failure> {
        self.ensure_open(space)?;
        let begun = Instant::now();
        let mut failed = None;
        for share in [2, 1] {
            if let Err(open) = self.admit() {
                return Err(failed.unwrap_or(open));
            }
            let told = self.call(|a| call(a, begun + space.terms.deadline / share));
            let undecided = matches!(told, Err(AuthorityError::Undecided(_)));
            space.counters.count_call(rows, undecided, told.is_err());
            match told {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.is_transient() => return Err(Failure::new(error)),
                Err(error @ AuthorityError::NotExclusive { .. }) => {
                    return Err(Failure::new(error));
                }
                Err(error) => failed = failed.or(Some(Failure::new(error))),
            }
        }
        Err(failed.unwrap_or_else(|| Failure::not_sent("it was not sent")))
    }

    /// Reads buckets, and makes sure that it is the server that has them: one that lost what it knew would
    /// say that there is nothing.
    fn read(
        &mut self,
        space: &Space,
        buckets: &[Bucket],
    ) -> Result<Vec<Vec<StoredChunk>>, Failure> {
        let name = Arc::clone(&space.terms.space);
        let read = self.twice(space, buckets.len(), |a, until| {
            let read = a.read(&name, buckets, until)?;
            match read.len() == buckets.len() {
                true => Ok(read),
                false => Err(AuthorityError::undecided("its client read too few buckets")),
            }
        })?;
        let before = self.incarnation();
        let opened = self.open_space(space)?;
        match before {
            Some(before) if before != opened.server.incarnation => Err(Failure::restarted()),
            _ => Ok(read),
        }
    }

    fn acquire(&mut self, space: &Space, request: &Acquire) -> Result<Acquired, Failure> {
        let name = Arc::clone(&space.terms.space);
        let acquired = self.twice(space, 0, |a, until| a.acquire(&name, request, until))?;
        self.saw(&acquired.server);
        Ok(acquired)
    }

    fn leave(&mut self, space: &Space, leaving: Leaving) -> Result<(), Failure> {
        let name = Arc::clone(&space.terms.space);
        let Leaving { epoch, holder, unwritten } = leaving;
        self.twice(space, 0, |a, until| {
            let Some(progress) = unwritten else { return a.release(&name, epoch, holder, until) };
            // The next owner must not take it for one that had written all.
            let (lease, chunks) = (Duration::ZERO, &[][..]);
            let append = Append { space: &name, epoch, holder, lease, progress, chunks };
            let none = || Err(AuthorityError::undecided("its client did not answer an append"));
            a.append(&[append], until)?.pop().unwrap_or_else(none).map(drop)
        })
    }

    /// Writes what the owners have that are due.
    pub(super) fn write_due(&mut self) {
        let due: Vec<Arc<Space>> =
            self.spaces().into_iter().filter(|space| space.write_is_due()).collect();
        if due.is_empty() {
            return;
        }
        if self.admit().is_err() {
            due.iter().for_each(|space| space.wrote(false));
            return;
        }
        // What failed is counted, and tried again.
        let _ = self.write(&due, false);
    }

    /// One call for all of the spaces. With `heard` also those that have nothing to write.
    fn write(&mut self, spaces: &[Arc<Space>], heard: bool) -> Result<(), Failure> {
        let mut failed = Ok(());
        let mut appends: Vec<(&Arc<Space>, Arc<Outgoing>)> = Vec::new();
        for space in spaces {
            match self.ask_owner(space, heard) {
                Ok(None) => space.wrote(false),
                Ok(Some(outgoing)) => appends.push((space, outgoing)),
                Err(failure) => {
                    space.wrote(false);
                    failed = Err(failure);
                }
            }
        }
        failed.and(self.append(&appends))
    }

    /// What the owner has to write, after what has to come before that.
    fn ask_owner(&mut self, space: &Space, heard: bool) -> Result<Option<Arc<Outgoing>>, Failure> {
        let Some(watcher) = space.watcher() else { return Ok(None) };
        self.ensure_open(space)?;
        self.admit()?;
        // It looks, asks for the space again, and writes.
        for _ in 0..3 {
            match watcher.wants(heard) {
                Want::Nothing => return Ok(None),
                Want::Append(outgoing) => return Ok(Some(outgoing)),
                Want::Look => drop(self.open_space(space)?),
                Want::Acquire(request) => {
                    let acquired = self.acquire(space, &request);
                    let failed = acquired.as_ref().err().cloned();
                    watcher.acquired(acquired);
                    failed.map_or(Ok(()), Err)?;
                }
            }
        }
        Ok(None)
    }

    fn append(&mut self, appends: &[(&Arc<Space>, Arc<Outgoing>)]) -> Result<(), Failure> {
        if appends.is_empty() {
            return Ok(());
        }
        let all: Vec<Append<'_>> = appends
            .iter()
            .map(|(space, outgoing)| Append {
                space: &space.terms.space,
                epoch: outgoing.epoch,
                holder: outgoing.holder,
                lease: outgoing.lease,
                progress: outgoing.progress,
                chunks: &outgoing.chunks,
            })
            .collect();
        let deadline = appends.iter().map(|(space, _)| space.terms.deadline).min();
        let deadline = Instant::now() + deadline.unwrap_or_default();
        let told = self.call(|a| {
            let told = a.append(&all, deadline)?;
            match told.len() == all.len() {
                true => Ok(told),
                false => Err(AuthorityError::undecided("its client answered too few appends")),
            }
        });
        let told = told.map_err(Failure::new);
        let undecided = told.as_ref().is_err_and(|failure| failure.undecided);
        for (space, outgoing) in appends {
            space.counters.count_call(outgoing.keys, undecided, told.is_err());
        }
        let answers: Vec<Result<Appended, Failure>> = match &told {
            Ok(_) => Vec::new(),
            Err(failure) => appends.iter().map(|_| Err(failure.clone())).collect(),
        };
        let answers = match told {
            Ok(told) => told.into_iter().map(|one| one.map_err(Failure::new)).collect(),
            Err(_) => answers,
        };
        let mut failed = Ok(());
        for ((space, outgoing), answer) in appends.iter().zip(answers) {
            if let Ok(appended) = &answer {
                self.saw(&appended.server);
            }
            failed = failed.and(answer.as_ref().map(|_| ()).map_err(Failure::clone));
            let more = space.watcher().is_some_and(|watcher| watcher.wrote(outgoing, answer));
            space.wrote(more);
        }
        failed
    }
}
