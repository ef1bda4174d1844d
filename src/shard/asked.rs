//! Keys that the authority is being asked about, and what it told of them.
//!
//! Only one call of a store has its turn with a digest: the others wait, and find what it brought. What
//! was asked and never answered stays here with its token, so that the next call gets that answer.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Call, Shard, Target, Tools};
use crate::authority::Token;
use crate::digest::Digest;
use crate::error::Result;
use crate::format::record::Record;
use crate::log::Level;

/// What was asked and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsure {
    /// An observation; else a claim.
    pub(crate) observed: bool,
    pub(crate) token: Token,
    /// When it was first asked, in time of the store.
    pub(crate) sent_ns: i64,
    /// When it was last asked.
    pub(crate) last_ns: i64,
}

#[derive(Default)]
pub(crate) struct Asked {
    busy: bool,
    unsure: Option<Unsure>,
    /// It was forgotten elsewhere meanwhile: what the answer says may not be kept.
    forgotten: bool,
}

/// The kind of side value that this is; what follows is empty when it is known after all.
const UNSURE: u8 = 1;

fn payload(unsure: Option<Unsure>) -> Vec<u8> {
    let mut payload = vec![UNSURE];
    if let Some(unsure) = unsure {
        payload.push(u8::from(unsure.observed));
        payload.extend_from_slice(unsure.token.as_bytes());
        payload.extend_from_slice(&unsure.sent_ns.to_le_bytes());
        payload.extend_from_slice(&unsure.last_ns.to_le_bytes());
    }
    payload
}

fn unsure_of(payload: &[u8]) -> Option<Unsure> {
    let (kind, rest) = payload.split_first()?;
    let (observed, rest) = rest.split_first()?;
    let (token, rest) = rest.split_first_chunk::<16>()?;
    let (sent_ns, rest) = rest.split_first_chunk()?;
    let (sent_ns, last_ns) =
        (i64::from_le_bytes(*sent_ns), i64::from_le_bytes(*rest.first_chunk()?));
    let (observed, token) = (*observed == 1, Token::from_bytes(*token));
    (*kind == UNSURE).then_some(Unsure { observed, token, sent_ns, last_ns })
}

impl Shard {
    /// Takes the turn with a digest: what was asked of it before and never answered. `None` while
    /// another call has it.
    pub(crate) fn take_turn(&mut self, digest: Digest) -> Option<Option<Unsure>> {
        let asked = self.asked.entry(digest).or_default();
        if asked.busy {
            return None;
        }
        (asked.busy, asked.forgotten) = (true, false);
        Some(asked.unsure)
    }

    /// Gives the turn back. What is not known then is journaled, so that this store can still tell it
    /// from what others did after its process was killed.
    pub(crate) fn end_turn(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        unsure: Option<Unsure>,
    ) {
        let Some(unsure) = unsure else {
            match self.settle(tools, call, digest) {
                Ok(()) => drop(self.asked.remove(&digest)),
                // It is asked again, which brings the same answer.
                Err(_) => self.asked.entry(digest).or_default().busy = false,
            }
            return;
        };
        let asked = self.asked.entry(digest).or_default();
        let before = std::mem::replace(asked, Asked { unsure: Some(unsure), ..Asked::default() });
        if before.unsure != Some(unsure) {
            self.note_unsure(tools, call, digest, unsure);
        }
    }

    fn note_unsure(&mut self, tools: &Tools, call: &mut Call, digest: Digest, unsure: Unsure) {
        // Without space for it, it is known until the process ends.
        let slice = self.catalog.current;
        let _ = self.journal_unsure(tools, call, digest, slice, Some(unsure));
        call.must_sync |= tools.log.level() == Level::Sync;
    }

    /// Notes that what was asked of the digest has its answer. The answer relies on that: to whoever asks
    /// with the same token again the authority says the same again.
    pub(crate) fn settle(&mut self, tools: &Tools, call: &mut Call, digest: Digest) -> Result<()> {
        let is_unsure = |asked: &&mut Asked| asked.unsure.is_some();
        if self.asked.get_mut(&digest).filter(is_unsure).is_none() {
            return Ok(());
        }
        self.journal_unsure(tools, call, digest, self.catalog.current, None)?;
        call.must_sync |= tools.log.level() == Level::Sync;
        self.asked.entry(digest).or_default().unsure = None;
        Ok(())
    }

    /// Takes it back that a question was settled: nobody was told of the answer.
    pub(crate) fn unsettle(&mut self, tools: &Tools, call: &mut Call, digest: Digest, was: Unsure) {
        let asked = self.asked.entry(digest).or_default();
        if asked.unsure.is_none() {
            asked.unsure = Some(was);
            self.note_unsure(tools, call, digest, was);
        }
    }

    fn journal_unsure(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        slice: u64,
        unsure: Option<Unsure>,
    ) -> Result<()> {
        let payload = Cow::Owned(payload(unsure));
        self.journal_control(tools, call, &Record::Value { digest, slice, payload })
    }

    /// Writes what is not known again, so that the segments it was in can go.
    pub(super) fn carry_over_asked(&mut self, tools: &Tools, call: &mut Call) -> Result<()> {
        let unsure = self.asked.iter().filter_map(|(digest, asked)| Some((*digest, asked.unsure?)));
        let unsure: Vec<_> = unsure.collect();
        let slice = self.catalog.current;
        unsure.into_iter().try_for_each(|(digest, unsure)| {
            self.journal_unsure(tools, call, digest, slice, Some(unsure))
        })
    }

    /// Puts back what the journal has; the record is of `value`'s payload.
    pub(crate) fn restore_asked(&mut self, digest: Digest, value: &[u8]) {
        if let Some(unsure) = unsure_of(value) {
            self.asked.insert(digest, Asked { unsure: Some(unsure), ..Asked::default() });
        }
    }

    /// What was asked of the digest and not answered, while no call has its turn.
    pub(crate) fn is_unsure(&self, digest: Digest) -> bool {
        self.asked.get(&digest).is_some_and(|asked| asked.unsure.is_some() && !asked.busy)
    }

    /// Whether the digest was forgotten since its turn began.
    pub(crate) fn was_forgotten(&self, digest: Digest) -> bool {
        self.asked.get(&digest).is_some_and(|asked| asked.forgotten)
    }

    /// Time left of a claim that is known here to keep others from the digest.
    pub(crate) fn surely_held_for(
        &self,
        digest: Digest,
        now_ns: impl FnOnce() -> i64,
    ) -> Option<std::time::Duration> {
        let doubted = self.claims.get(&digest)?.remote.doubted;
        if doubted { None } else { self.held_for(digest, now_ns) }
    }

    /// Drops what the authority has let go of too: last asked before the oldest slice, and one more.
    pub(super) fn drop_old_questions(&mut self) {
        let oldest = &self.catalog.slices[0];
        let since_ns = oldest.start_ns.saturating_sub(oldest.end_ns - oldest.start_ns);
        self.asked.retain(|_, asked| {
            asked.busy || asked.unsure.is_some_and(|unsure| unsure.last_ns >= since_ns)
        });
    }

    /// Ends a claim on the digest, whose lease is over: the authority has marked the digest.
    fn end_lapsed(&mut self, tools: &Tools, call: &mut Call, digest: Digest) -> Result<()> {
        if let Some(claim) = self.claims.get(&digest) {
            let token = claim.token;
            self.journal_control(tools, call, &Record::Abandon { token })?;
            self.drop_claim(tools, digest);
        }
        Ok(())
    }

    /// Keeps what the authority has marked for us, with what was given to it.
    pub(crate) fn record_won(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        (digest, kept): (Digest, Option<&Arc<[u8]>>),
    ) -> Result<()> {
        self.end_lapsed(tools, call, digest)?;
        if self.was_forgotten(digest) {
            return Ok(());
        }
        let target = self.current();
        self.make_learned(tools, call, (digest, kept), target)
    }

    fn make_learned(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        (digest, kept): (Digest, Option<&Arc<[u8]>>),
        target: Target,
    ) -> Result<()> {
        let mark = |shard: &mut Shard, call: &mut Call| {
            shard.make_known(tools, call, digest, target, None)?;
            shard.count(target.slice, 1);
            Ok(())
        };
        match kept {
            None => mark(self, call),
            Some(kept) => self.keep_and_mark(tools, call, digest, target.slice, kept, mark),
        }
    }

    /// Keeps that the authority holds the digest since an instant of `target`, and what it has kept.
    pub(crate) fn learn(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        (digest, kept): (Digest, Option<&Arc<[u8]>>),
        target: Target,
    ) -> Result<()> {
        self.end_lapsed(tools, call, digest)?;
        if self.was_forgotten(digest) {
            return Ok(());
        }
        // What is known of it already ends too early at worst.
        let mask = self.suspects(digest);
        if self.find(digest, mask)?.is_some() {
            return Ok(());
        }
        self.make_learned(tools, call, (digest, kept), target)
    }

    /// The digest was forgotten, by whatever process: what is known of it here does not count. A claim
    /// on it stays, because it may be newer, and keeps nobody from asking the authority.
    pub(crate) fn forget_elsewhere(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
    ) -> Result<()> {
        if let Some(asked) = self.asked.get_mut(&digest) {
            asked.forgotten = true;
        }
        if let Some(claim) = self.claims.get_mut(&digest) {
            claim.remote.doubted = true;
        }
        let mask = self.suspects(digest);
        if self.find(digest, mask)?.is_none() {
            return Ok(());
        }
        let claim = self.claims.remove(&digest);
        let forgotten = self.forget(tools, call, digest);
        if let Some(claim) = claim {
            self.claims.insert(digest, claim);
        }
        self.counters.forgotten -= u64::from(matches!(forgotten, Ok(true)));
        forgotten.map(|_| ())
    }
}
