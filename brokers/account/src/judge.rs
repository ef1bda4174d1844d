//! The judgement: what was sent beside what was done.

use std::fmt;

use anyhow::{Result, ensure};

use crate::BATCH;
use crate::effects::{Done, Tally};
use crate::message::Message;

/// What a campaign has sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Different messages, numbered from zero.
    pub(crate) messages: u64,
    /// Messages with their repetitions.
    pub(crate) copies: u64,
}

/// The account of a campaign.
#[derive(Debug)]
#[must_use = "it may say that something was lost"]
pub struct Report {
    pub kills: u64,
    /// Kills of consumers that had not come to do anything.
    pub wasted_kills: u64,
    pub messages: u64,
    /// Messages and what their producers sent again.
    pub copies: u64,
    pub lost: u64,
    /// Ids that were booked twice, although the id is in the transaction.
    pub doubled_booked: u64,
    /// Effects that no transaction protects, beyond one an id: done, and not marked when the
    /// consumer was killed.
    pub doubled_plain: u64,
    pub duplicates_refused: u64,
    /// Duplicates that the broker had not flagged as delivered before.
    pub refused_unflagged: u64,
}

pub(crate) fn judge(sent: &Sent, done: &Done, tally: &Tally, kills: u64, wasted: u64) -> Report {
    let mut report = Report {
        kills,
        wasted_kills: wasted,
        messages: sent.messages,
        copies: sent.copies,
        lost: 0,
        doubled_booked: 0,
        doubled_plain: 0,
        duplicates_refused: done.duplicates,
        refused_unflagged: done.unflagged,
    };
    for message in (0..sent.messages).map(Message::numbered) {
        let plain = done.effects.get(&message.id).copied().unwrap_or(0);
        let booked = tally.get(&message.id).map_or(&[][..], Vec::as_slice);
        report.lost += u64::from(plain == 0 || !booked.contains(&message.amount));
        report.doubled_booked += u64::from(booked.len() > 1);
        report.doubled_plain += plain.saturating_sub(1);
    }
    report
}

impl Report {
    /// Nothing lost; nothing doubled where the id is in the transaction; elsewhere at most what was
    /// in work at the instants of the kills.
    pub fn check(&self) -> Result<()> {
        ensure!(self.messages > 0, "nothing was sent");
        ensure!(self.lost == 0, "{} messages are lost", self.lost);
        ensure!(self.doubled_booked == 0, "{} messages are booked twice", self.doubled_booked);
        // What drains the queue is killed as well.
        let most = (self.kills + 1) * BATCH as u64;
        ensure!(
            self.doubled_plain <= most,
            "{} plain effects were repeated, {} kills explain {most} at most",
            self.doubled_plain,
            self.kills + 1,
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kills {} (before any work {}) messages {} copies {} lost {} doubled_booked {} \
             doubled_plain {} duplicates_refused {} (of them not flagged by the broker {})",
            self.kills,
            self.wasted_kills,
            self.messages,
            self.copies,
            self.lost,
            self.doubled_booked,
            self.doubled_plain,
            self.duplicates_refused,
            self.refused_unflagged,
        )
    }
}
