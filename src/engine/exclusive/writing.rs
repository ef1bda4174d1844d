//! One append after the other: what is under way, and what is known of the server.
//!
//! The journal itself says how many digests of each chunk are acknowledged, so a killed process loses
//! nothing of that. One append is under way at a time; until it has its answer it is repeated as it was.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire as Acq, Relaxed, Release};

use super::outgoing::{Keys, Sources};
use super::{IN_DOUBT, OWNER, Owner, layout};
use crate::authority::{Acquire, Acquired, Appended, Chunk, Progress, Token};
use crate::engine::Engine;
use crate::engine::shared::span;
use crate::error::{Error, Result};
use crate::gather::{Failure, Outgoing, Want};
use crate::time::Timestamp;

/// What is under way, and what is known of the server.
pub(super) struct Writing {
    epoch: u64,
    /// The owner before this one.
    last: Option<Token>,
    /// As the owner record has it.
    progress: Progress,
    /// Number of the last chunk.
    number: u64,
    /// What is written is known to be there through this instant, in time of the store.
    through_ns: i64,
    /// The incarnation that has the owner record, and the one that was seen last.
    of_epoch: u64,
    seen: u64,
    /// The server lacks what was written: all that is live is written again.
    lost: bool,
    again: Option<Acquire>,
    flight: Option<Flight>,
    /// It is to be heard of, though there may be nothing to write.
    tells: bool,
    /// Attempts in a row to gather what is to be written that failed, and why the last did.
    failed: (u32, Option<Error>),
    asked_ns: i64,
}

/// An append that has no answer yet.
struct Flight {
    outgoing: Arc<Outgoing>,
    sources: Sources,
    /// What is there when it has been applied.
    through_ns: Option<i64>,
    /// There is more to be written.
    more: bool,
}

/// Chunks are numbered from the time on. A server that restarts empty counts epochs from the first again:
/// then an owner that has not noticed and the next one have the same epoch, but no number in common.
fn first_number(acquired: &Acquired) -> u64 {
    let now_us = acquired.server.time.as_unix_nanos().max(0).unsigned_abs() / 1_000;
    acquired.progress.position.max(now_us)
}

impl Writing {
    pub(super) fn new(acquired: &Acquired, lost: bool) -> Self {
        let incarnation = acquired.server.incarnation;
        Writing {
            epoch: acquired.epoch,
            last: acquired.last,
            progress: acquired.progress,
            number: first_number(acquired),
            through_ns: i64::MIN,
            of_epoch: incarnation,
            seen: incarnation,
            lost,
            again: None,
            flight: None,
            tells: false,
            failed: (0, None),
            asked_ns: 0,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn last(&self) -> Option<Token> {
        self.last
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn position(&self) -> u64 {
        self.progress.position
    }

    pub(super) fn through_ns(&self) -> i64 {
        self.through_ns
    }

    /// The owner record was another server's, or what that was before it lost something.
    pub(super) fn is_of_another_server(&self) -> bool {
        self.of_epoch != self.seen
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.flight.is_some()
    }

    /// The next owner has to hear of it soon, if the record says more than this store vouches for.
    pub(super) fn tell_since(&mut self, recorded: Timestamp, vouched: Timestamp) {
        self.tells = vouched > recorded;
    }

    /// What cannot be gathered, if that failed so many times.
    pub(super) fn take_failure(&mut self, times: u32) -> Option<Error> {
        self.failed.1.take_if(|_| self.failed.0 >= times)
    }

    pub(super) fn has_not_seen(&self, incarnation: u64) -> bool {
        self.seen != incarnation
    }

    /// The server may have lost what was written to it.
    pub(super) fn lose_server(&mut self, incarnation: u64) {
        (self.seen, self.lost) = (incarnation, true);
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Something has no answer yet, or has to be done first.
    pub(super) fn is_open(&self) -> bool {
        self.flight.is_some() || self.lost || self.again.is_some()
    }

    pub(super) fn ask_again(&mut self, request: Acquire) {
        self.again = Some(request);
    }

    /// The space is this store's again; returns when it was asked for.
    pub(super) fn begin_epoch(&mut self, acquired: &Acquired) -> i64 {
        self.epoch = acquired.epoch;
        self.of_epoch = acquired.server.incarnation;
        self.number = self.number.max(first_number(acquired));
        // What was under way carries the old epoch. It is written again with all the rest.
        (self.again, self.flight, self.lost) = (None, None, true);
        self.asked_ns
    }
}

impl Engine {
    pub(in crate::engine) fn what_to_write(&self, owner: &Owner, heard: bool) -> Want {
        let mut writing = owner.writing.lock();
        writing.asked_ns = self.time.now();
        match owner.standing.load(Acq) {
            OWNER => {}
            IN_DOUBT => {
                return match &writing.again {
                    Some(request) => Want::Acquire(*request),
                    None => Want::Look,
                };
            }
            _ => return Want::Nothing,
        }
        let heard = heard || writing.tells || !owner.is_lease_fresh(writing.asked_ns);
        if writing.flight.is_none() {
            writing.flight = match self.fill_flight(owner, &mut writing, heard) {
                Ok(flight) => {
                    writing.failed = (0, None);
                    flight
                }
                Err(error) => {
                    self.note_background_error(&error);
                    writing.failed = (writing.failed.0.saturating_add(1), Some(error));
                    heard.then(|| self.flight(owner, &writing, Vec::new(), 0))
                }
            };
        }
        let outgoing = writing.flight.as_ref().map(|flight| Arc::clone(&flight.outgoing));
        outgoing.map_or(Want::Nothing, Want::Append)
    }

    fn flight(&self, owner: &Owner, writing: &Writing, chunks: Vec<Chunk>, keys: usize) -> Flight {
        let since = owner.server_time_after(self.guaranteed_since().as_unix_nanos());
        let progress = Progress {
            position: writing.number,
            complete_since: since.max(Timestamp::from_unix_nanos(owner.kept_since_ns)),
            complete_through: writing.progress.complete_through,
            layout: layout(owner.part_bits, owner.window_ns),
        };
        let lease = span(owner.lease_ns);
        let (epoch, holder) = (writing.epoch, owner.holder);
        let outgoing = Arc::new(Outgoing { epoch, holder, lease, progress, chunks, keys });
        Flight { outgoing, sources: Sources::default(), through_ns: None, more: false }
    }

    /// Gathers what is to be written; an append without chunks if the server is to hear of this store.
    fn fill_flight(
        &self,
        owner: &Owner,
        writing: &mut Writing,
        heard: bool,
    ) -> Result<Option<Flight>> {
        if writing.lost {
            self.begin_again(owner, writing.seen)?;
            writing.lost = false;
        }
        let began_ns = self.time.now();
        let (mut keys, mut sources) = (Keys::new(), Sources::default());
        // What is sealed meanwhile has left the journal after it was named.
        let mut whole = self.gather_journal(&mut sources);
        whole &= self.gather_run(owner, &mut keys, &mut sources)?;
        whole &= self.gather_forgotten(owner, &mut sources);
        let decided = self.read_decided(&mut keys, &sources);
        if let Err(error) = decided {
            owner.forgotten.lock().append(&mut sources.forgotten);
            return Err(error);
        }
        let (keys, forgotten) = self.without_dead(owner, keys, &sources.forgotten);
        let count = keys.len() + forgotten.len();
        let chunks = self.pack(owner, writing, keys, forgotten);
        let mut flight = self.flight(owner, writing, chunks, count);
        (flight.sources, flight.more) = (sources, !whole);
        if whole {
            flight.through_ns = Some(began_ns);
            if let Some(outgoing) = Arc::get_mut(&mut flight.outgoing) {
                outgoing.progress.complete_through = owner.server_time_before(began_ns);
            }
        }
        if flight.outgoing.chunks.is_empty() && !heard {
            // What it is about is over, or was read from there.
            self.acknowledge(owner, &flight.sources)?;
            return Ok(None);
        }
        Ok(Some(flight))
    }

    /// The server lacks what was written: all of it goes again.
    pub(super) fn begin_again(&self, owner: &Owner, incarnation: u64) -> Result<()> {
        for segment in self.segments_in_use() {
            (0..segment.chunks()).for_each(|number| segment.set_sent(number, 0));
        }
        self.ledger.update(|manifest| {
            owner.begun_again.fetch_add(1, Release);
            let all = manifest.runs.iter().map(|run| run.file).collect();
            if let Some(named) = &mut manifest.owner {
                (named.incarnation, named.unsent) = (incarnation, all);
            }
        })?;
        owner.learned.lock().clear();
        *owner.run_pages.lock() = (0, 0);
        self.forget_at_authority_again(owner);
        Ok(())
    }

    /// The answer to an append. Says whether there is more to write.
    pub(in crate::engine) fn was_written(
        &self,
        owner: &Owner,
        outgoing: &Arc<Outgoing>,
        answer: std::result::Result<Appended, Failure>,
    ) -> bool {
        let answered_ns = self.time.now();
        let mut writing = owner.writing.lock();
        let is_it = |flight: &mut Flight| Arc::ptr_eq(&flight.outgoing, outgoing);
        let appended = match answer {
            Ok(appended) => appended,
            Err(failure) => {
                let stale = failure.is_stale();
                drop(writing);
                if stale {
                    owner.set_in_doubt();
                    self.turn_mark(owner);
                }
                return stale;
            }
        };
        let asked_ns = writing.asked_ns;
        owner.saw_clock(&appended.server, asked_ns, answered_ns);
        if writing.again.is_none() {
            owner.is_heard(asked_ns);
        }
        writing.lost |= appended.before < writing.progress.position;
        let mut more = writing.lost;
        if let Some(flight) = writing.flight.take_if(is_it) {
            writing.progress = outgoing.progress;
            writing.tells = false;
            writing.through_ns = flight.through_ns.unwrap_or(writing.through_ns);
            owner.keys_written.fetch_add(outgoing.keys as u64, Relaxed);
            owner.chunks_written.fetch_add(outgoing.chunks.len() as u64, Relaxed);
            more |= flight.more;
            if let Err(error) = self.acknowledge(owner, &flight.sources) {
                // It is written again.
                self.note_background_error(&error);
            }
        }
        drop(writing);
        self.turn_mark(owner);
        if !self.tools.journal.full_segments().is_empty() {
            self.schedule_seal();
        }
        more
    }

    /// Notes that the authority has what an append was made of.
    fn acknowledge(&self, owner: &Owner, sources: &Sources) -> Result<()> {
        for (segment, number, filled) in &sources.chunks {
            segment.set_sent(*number, *filled);
        }
        match sources.run {
            Some((file, Some(page))) => *owner.run_pages.lock() = (file, page),
            Some((file, None)) => {
                self.ledger.update(|manifest| {
                    if let Some(owner) = &mut manifest.owner {
                        owner.unsent.retain(|unsent| *unsent != file);
                    }
                })?;
                self.schedule_merge();
            }
            None => {}
        }
        Ok(())
    }
}
