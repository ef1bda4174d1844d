//! The part of a consumer that does not depend on the broker: claim a batch, do the work, commit the
//! batch, and say which messages may be acknowledged.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use onceonly::{Claim, ClaimGuard, Dedup};

use crate::effects::{Books, Journal};
use crate::message::Message;
use crate::meter::Meter;

/// A message as the broker handed it over.
pub struct Delivery {
    pub message: Message,
    /// The broker says that it may have delivered it before.
    pub redelivered: bool,
    /// What it is deduplicated on, if not on its id.
    content: Option<Vec<u8>>,
}

impl Delivery {
    /// To be deduplicated on the message's id.
    #[must_use]
    pub fn new(message: Message, redelivered: bool) -> Self {
        Delivery { message, redelivered, content: None }
    }

    /// To be deduplicated on what it says: `content` is a digest of that.
    #[must_use]
    pub fn by_content(mut self, content: &[u8]) -> Self {
        self.content = Some(content.to_owned());
        self
    }

    fn key(&self) -> &[u8] {
        self.content.as_deref().unwrap_or(self.message.id.as_bytes())
    }
}

/// What to tell the broker about one delivery of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done now or before: acknowledge it.
    Acknowledge,
    /// Not done, or done and not marked: it has to come again.
    Again,
}

/// The store of one partition, below `dir`.
pub fn open_store(dir: &Path) -> onceonly::Result<Dedup> {
    Dedup::builder()
        .window(Duration::from_secs(3600))
        .lease(Duration::from_secs(30))
        .lock_wait(Duration::from_secs(10))
        .open(dir.join("store"))
}

/// A consumer of one partition: it owns the store of that partition.
pub struct Consumer {
    dedup: Dedup,
    pub handler: Handler,
}

impl Consumer {
    /// Opens store and books below `dir`. The lock of the store makes sure that a former owner is
    /// gone; what it had claimed is granted again at once.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Consumer { dedup: open_store(dir)?, handler: Handler::open(dir)? })
    }

    /// Handles what the broker delivered together; the answers are in the same order.
    pub fn handle(&mut self, batch: &[Delivery]) -> Result<Vec<Answer>> {
        self.handler.handle(&self.dedup, batch)
    }
}

/// Does the work of deliveries, whatever store they belong to.
pub struct Handler {
    pub meter: Meter,
    journal: Journal,
    books: Books,
}

impl Handler {
    /// Opens the books below `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        let (journal, books) = (Journal::open(dir)?, Books::open(dir)?);
        Ok(Handler { meter: Meter::start(), journal, books })
    }

    /// Handles deliveries whose ids are remembered by `dedup`; the answers are in the same order.
    pub fn handle(&mut self, dedup: &Dedup, batch: &[Delivery]) -> Result<Vec<Answer>> {
        let keys: Vec<&[u8]> = batch.iter().map(Delivery::key).collect();
        let claims = self.meter.engine(|| dedup.claim_batch(&keys))?;

        let mut answers = vec![Answer::Again; batch.len()];
        let mut granted: Vec<(usize, ClaimGuard)> = Vec::with_capacity(batch.len());
        for (at, claim) in claims.into_iter().enumerate() {
            match claim {
                Claim::Granted(guard) => granted.push((at, guard)),
                Claim::Duplicate { .. } => {
                    let Delivery { message, redelivered, .. } = &batch[at];
                    self.journal.duplicate(&message.id, *redelivered)?;
                    answers[at] = Answer::Acknowledge;
                }
                // In work already, for example as an earlier message of this batch.
                _ => {}
            }
        }
        self.work(batch, &granted)?;

        let (places, guards): (Vec<usize>, Vec<ClaimGuard>) = granted.into_iter().unzip();
        let committed = self.meter.engine(|| dedup.commit_batch(guards));
        for (at, result) in places.into_iter().zip(committed) {
            result.context("commit")?;
            answers[at] = Answer::Acknowledge;
        }
        self.meter.messages(answers.iter().filter(|at| **at == Answer::Acknowledge).count());
        Ok(answers)
    }

    /// Both kinds of effects. An error drops the guards, which gives the ids back.
    fn work(&mut self, batch: &[Delivery], granted: &[(usize, ClaimGuard)]) -> Result<()> {
        for (at, guard) in granted {
            self.journal.effect(&batch[*at].message, guard.token())?;
        }
        self.books.apply(granted.iter().map(|(at, guard)| (&batch[*at].message, guard.token())))
    }
}
