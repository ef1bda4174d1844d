//! What the harness has to know of a broker.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::effects::{Books, Tally};
use crate::message::Message;

/// A queue on a real server, made for one campaign.
pub trait Broker: Sized {
    /// Where the server listens if nothing else is said.
    const SERVER: &'static str;
    /// How to start one.
    const START: &'static str;

    /// How many messages a campaign sends at once, whenever fewer are in the queue.
    const SENT_AT_ONCE: u64 = 1000;

    /// Makes the queue `queue`.
    fn create(server: &str, queue: &str) -> Result<Self>;

    /// Where the consumer finds the server that was given as `given`: another place if the harness
    /// has started one of its own.
    fn address(&self, given: &str) -> String {
        given.to_owned()
    }

    /// Sends `messages` and returns when the broker has them.
    fn publish(&mut self, messages: &[Message]) -> Result<()>;

    /// Messages that the broker holds for the consumer: not delivered, or, where it tells, not
    /// acknowledged.
    fn backlog(&mut self) -> Result<u64>;

    /// What was booked in the transactions that hold the id.
    fn tally(&mut self, dir: &Path) -> Result<Tally> {
        Books::tally(dir)
    }

    /// Removes the queue.
    fn remove(self) -> Result<()>;

    /// The consumer: runs until it is killed, or has handled as many messages as it was told.
    fn consume(consume: &Consume) -> Result<()>;
}

/// Arguments of the command `consume`.
#[derive(Clone, Debug, clap::Args)]
pub struct Consume {
    #[arg(long)]
    pub server: String,
    #[arg(long)]
    pub queue: String,
    /// Where the consumer keeps its store and its books.
    #[arg(long)]
    pub dir: PathBuf,
    /// Stop after so many messages and print what they took.
    #[arg(long)]
    pub stop_after: Option<u64>,
}

impl Consume {
    /// Whether the consumer has done what it was told.
    #[must_use]
    pub fn is_over(&self, messages: u64) -> bool {
        self.stop_after.is_some_and(|most| messages >= most)
    }
}
