//! What is kept with marks: results of work, and fingerprints of messages.
//!
//! A value is journaled before its mark and in the same segment, so a mark that is found has its value. It belongs to a digest and
//! the slice of its mark: what is kept in another slice is of another mark, or was taken over by a refresh.
//! `forget` writes that nothing is kept any more, before its tombstone: else a key that is seen again in
//! the same slice would get the value of before.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::active::Active;
use super::control::ClaimState;
use super::pending::Mark;
use super::{Call, Shard, Target, Tools};
use crate::digest::{Digest, DigestMap};
use crate::error::{Error, Result};
use crate::format::kept::{self, KEPT, Kept, LOST, TALLY, Trace};
use crate::format::names::{self, Kind};
use crate::format::record::Record;

/// All tags that a digest may have values of.
const TAGS: [u8; 2] = [KEPT, TALLY];

/// Values whose last record is in one segment of the journal.
#[derive(Default)]
pub(crate) struct KeptHere {
    of: DigestMap<Vec<Item>>,
    bytes: u64,
}

#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) slice: u64,
    pub(crate) tag: u8,
    /// Nothing, when nothing is kept any more.
    pub(crate) bytes: Arc<[u8]>,
}

impl KeptHere {
    fn find(&self, digest: Digest, slice: u64, tag: u8) -> Option<&Item> {
        self.of.get(&digest)?.iter().find(|item| (item.slice, item.tag) == (slice, tag))
    }

    fn put(&mut self, digest: Digest, item: Item) {
        let items = self.of.entry(digest).or_default();
        self.bytes += item.bytes.len() as u64;
        match items.iter_mut().find(|old| (old.slice, old.tag) == (item.slice, item.tag)) {
            Some(old) => {
                self.bytes -= old.bytes.len() as u64;
                *old = item;
            }
            None => items.push(item),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Digest, &Item)> {
        self.of.iter().flat_map(|(digest, items)| items.iter().map(|item| (*digest, item)))
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes + (self.of.capacity() * (size_of::<Item>() + 48)) as u64
    }
}

/// What a claim keeps from its beginning: what tells of it, where the store traces, and the fingerprint of
/// its message.
#[inline(always)]
pub(super) fn begin_kept(
    tools: &Tools,
    token: u64,
    now_ns: i64,
    note: &[u8],
    fingerprint: Option<Digest>,
) -> Option<Box<Kept>> {
    if !tools.traces && fingerprint.is_none() {
        return None;
    }
    Some(new_kept(tools.traces, token, now_ns, note, fingerprint))
}

#[cold]
#[inline(never)]
fn new_kept(
    traces: bool,
    token: u64,
    now_ns: i64,
    note: &[u8],
    fingerprint: Option<Digest>,
) -> Box<Kept> {
    let trace = traces.then(|| Trace::new(now_ns, token, note));
    Box::new(Kept { fingerprint, trace, result: None })
}

impl Shard {
    /// Counts a duplicate of a key that is marked in `slice`. Without space for that it is not counted.
    #[cold]
    #[inline(never)]
    pub(super) fn tally(&mut self, tools: &Tools, call: &mut Call, digest: Digest, slice: u64) {
        let Ok(refused) = self.refused(tools, digest, slice) else { return };
        let bytes = kept::encode_tally(digest, refused.saturating_add(1)).into();
        let _ = self.journal_value(tools, call, digest, (slice, TALLY), &bytes, false);
    }

    /// How often duplicates of a key that is marked in `slice` were refused, while the store traced.
    pub(crate) fn refused(&self, tools: &Tools, digest: Digest, slice: u64) -> Result<u64> {
        let Some(bytes) = self.value(digest, slice, TALLY)? else { return Ok(0) };
        kept::decode_tally(digest, &bytes).map_err(|why| self.damaged(tools, why))
    }

    /// What the newest unsealed record says.
    fn unsealed_value(&self, digest: Digest, slice: u64, tag: u8) -> Option<&Item> {
        let frozen = self.frozen.iter().rev().map(|set| &**set);
        let mut sets = self.active.iter().chain(frozen);
        sets.find_map(|set: &Active| set.kept()?.find(digest, slice, tag))
    }

    /// The bytes of a value, verified where they come from a file.
    pub(crate) fn value(&self, digest: Digest, slice: u64, tag: u8) -> Result<Option<Arc<[u8]>>> {
        let some = |bytes: Arc<[u8]>| (!bytes.is_empty()).then_some(bytes);
        if let Some(item) = self.unsealed_value(digest, slice, tag) {
            return Ok(some(Arc::clone(&item.bytes)));
        }
        let Some(live) = self.catalog.slice(slice) else { return Ok(None) };
        for values in live.values.iter().rev() {
            if let Some(bytes) = values.find(digest, tag)? {
                return Ok(some(bytes.into()));
            }
        }
        Ok(None)
    }

    /// What is kept with the mark of a digest in `slice`, where it is live.
    pub(crate) fn kept(&self, tools: &Tools, digest: Digest, slice: u64) -> Result<Option<Kept>> {
        let Some(bytes) = self.value(digest, slice, KEPT)? else { return Ok(None) };
        Kept::decode(digest, &bytes).map(Some).map_err(|why| self.damaged(tools, why))
    }

    fn damaged(&self, tools: &Tools, why: &str) -> Error {
        let segment = self.active.as_ref().map_or(0, |active| active.segment.id);
        Error::corrupt(tools.journal.path(&names::numbered(Kind::Journal, segment)), why)
    }

    /// Writes a value to the journal, and shows it. A value is in one segment, and if the key is `marked`
    /// next, the mark is in the same: they are sealed together, or lost together.
    fn journal_value(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        (slice, tag): (u64, u8),
        bytes: &Arc<[u8]>,
        marked: bool,
    ) -> Result<()> {
        tools.has_kept.store(true, Release);
        let payloads: Vec<_> = kept::pieces(tag, bytes).collect();
        let fits = payloads.len() == 1
            && self.active.as_mut().is_some_and(|active| {
                active.has_control_room(payloads[0].len()) && (!marked || active.has_room(slice))
            });
        let mut chunk = match fits {
            true => None,
            false => Some(self.take_chunks(tools, call, payloads.len(), slice, marked)?),
        };
        for payload in payloads {
            if let (Some(chunk), Some(active)) = (&mut chunk, &mut self.active) {
                active.add_control_chunk(*chunk);
                *chunk += 1;
            }
            let record = Record::Value { digest, slice, payload: Cow::Owned(payload) };
            self.journal_control(tools, call, &record)?;
        }
        if let Some(active) = &mut self.active {
            active.keep().put(digest, Item { slice, tag, bytes: Arc::clone(bytes) });
        }
        Ok(())
    }

    /// Takes chunks of one segment for the pieces of a value, of which the first is returned, and puts one
    /// more to use for a mark that has no room there.
    fn take_chunks(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        pieces: usize,
        slice: u64,
        marked: bool,
    ) -> Result<u32> {
        let pieces = pieces as u32;
        let here = self.active.as_ref().map(|active| active.segment.id);
        let has_room = self.active.as_mut().is_some_and(|active| active.has_room(slice));
        let needed = |segment| pieces + u32::from(marked && !(has_room && here == Some(segment)));
        tools.journal.reserve_more(&mut call.reservation, pieces + 1)?;
        let (taken, count) = tools.journal.take_together(&mut call.reservation, needed)?;
        call.began_segment |= taken.began_segment;
        let first = taken.chunk;
        let active = self.turn_to(tools, taken.segment);
        if count > pieces {
            active.add_chunk(first + pieces, slice);
        }
        Ok(first)
    }

    /// Writes that nothing is kept any more. Where there is no space for it, this process knows it.
    fn end_value(&mut self, tools: &Tools, digest: Digest, slice: u64, tag: u8) {
        let nothing: Arc<[u8]> = Arc::from([]);
        let mut call = Call::default();
        let ended = self.journal_value(tools, &mut call, digest, (slice, tag), &nothing, false);
        if let (Err(_), Some(active)) = (ended, &mut self.active) {
            active.keep().put(digest, Item { slice, tag, bytes: nothing });
        }
        tools.journal.release(call.reservation);
    }

    /// Journals what is kept, then marks the key by `mark`. Room for both is set aside first: an error
    /// leaves neither.
    pub(crate) fn keep_and_mark(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        slice: u64,
        bytes: &Arc<[u8]>,
        mark: impl FnOnce(&mut Shard, &mut Call) -> Result<()>,
    ) -> Result<()> {
        let takes_quota = tools.quota.is_limited() && !call.quota_taken;
        if takes_quota {
            tools.quota.take(1)?;
        }
        // For the value, the digest, and what ends a claim and a tombstone.
        let chunks = kept::most_chunks(bytes) + 3;
        let marked = tools.journal.reserve_more(&mut call.reservation, chunks).and_then(|()| {
            self.journal_value(tools, call, digest, (slice, KEPT), bytes, true)?;
            call.quota_taken |= takes_quota;
            let marked = mark(self, call);
            call.quota_taken &= !takes_quota;
            if marked.is_err() {
                self.end_value(tools, digest, slice, KEPT);
            }
            marked
        });
        if takes_quota && marked.is_err() {
            tools.quota.give_back(1);
        }
        marked
    }

    /// Journals what a claim keeps, then commits it by `commit`. The claim was taken out of the table; it is
    /// back there, with what it keeps, after an error.
    #[cold]
    #[inline(never)]
    pub(super) fn commit_kept(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        mut claim: ClaimState,
        target: Option<Target>,
        commit: impl FnOnce(&mut Shard, &mut Call) -> Result<()>,
    ) -> Result<()> {
        let Some(kept) = claim.kept.take() else { return Err(Error::Closed) };
        let bytes = kept.encode(digest).into();
        self.claims.insert(digest, claim);
        let committed = match target {
            Some(Target { slice, .. }) => {
                self.keep_and_mark(tools, call, digest, slice, &bytes, commit)
            }
            None => commit(self, call),
        };
        match committed {
            Ok(()) => self.was_kept(call, digest, kept),
            Err(_) => {
                if let Some(claim) = self.claims.get_mut(&digest) {
                    claim.kept = Some(kept);
                }
            }
        }
        committed
    }

    /// Lets go of what is kept with a mark in `slice`, which is undone.
    pub(super) fn undo_kept(&mut self, tools: &Tools, digest: Digest, slice: u64) {
        if !tools.has_kept.load(Relaxed) {
            return;
        }
        for tag in TAGS {
            let unsealed = self.unsealed_value(digest, slice, tag);
            if unsealed.is_some_and(|item| !item.bytes.is_empty()) {
                self.end_value(tools, digest, slice, tag);
            }
        }
    }

    /// Writes that nothing is kept with a digest any more, in whatever slice.
    #[cold]
    pub(super) fn forget_kept(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
    ) -> Result<()> {
        let nothing: Arc<[u8]> = Arc::from([]);
        let slices: Vec<u64> = self.catalog.slices.iter().map(|slice| slice.sequence).collect();
        for (slice, tag) in slices.into_iter().flat_map(|slice| TAGS.map(|tag| (slice, tag))) {
            let before = match self.value(digest, slice, tag) {
                Ok(None) => continue,
                Ok(Some(bytes)) => bytes,
                Err(Error::Corrupt { .. }) => Arc::from(LOST),
                Err(other) => return Err(other),
            };
            self.journal_value(tools, call, digest, (slice, tag), &nothing, false)?;
            self.note_pending(&tools.log, call, digest, || Mark::Dropped(slice, tag, before));
        }
        Ok(())
    }

    /// Puts back what [`Shard::forget_kept`] dropped.
    pub(super) fn undo_forget_kept(
        &mut self,
        tools: &Tools,
        digest: Digest,
        place: (u64, u8),
        bytes: &Arc<[u8]>,
    ) {
        let mut call = Call::default();
        let _ = self.journal_value(tools, &mut call, digest, place, bytes, false);
        tools.journal.release(call.reservation);
    }

    /// Takes what is kept over to the slice that a duplicate is recorded again in.
    #[cold]
    pub(super) fn refresh_kept(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        from: u64,
        to: u64,
    ) -> Result<()> {
        for tag in TAGS {
            let bytes = match self.value(digest, from, tag) {
                Ok(None) => continue,
                Ok(Some(bytes)) => bytes,
                // The key lives on; that its value is damaged is told as before.
                Err(Error::Corrupt { .. }) => Arc::from(LOST),
                Err(other) => return Err(other),
            };
            self.journal_value(tools, call, digest, (to, tag), &bytes, true)?;
        }
        Ok(())
    }

    /// Puts back a value that was read from a journal or a log, if its mark is there.
    pub(crate) fn restore_kept(
        &mut self,
        tools: &Tools,
        call: &mut Call,
        digest: Digest,
        place: (u64, u8),
        bytes: &[u8],
    ) -> Result<()> {
        let Some(live) = self.catalog.slice(place.0) else { return Ok(()) };
        let is_needed = match bytes {
            // What ends a value is needed where an older file may have it.
            [] => !live.values.is_empty(),
            _ => match self.find(digest, self.suspects(digest)) {
                Ok(found) => found == Some(place.0),
                Err(Error::Corrupt { .. }) => true,
                Err(other) => return Err(other),
            },
        };
        if is_needed {
            self.journal_value(tools, call, digest, place, &Arc::from(bytes), false)?;
        }
        Ok(())
    }
}
