//! Learning what is live in another store.
//!
//! Digests are gathered, and written as sorted parts of the slices that end when theirs did. What is
//! here already is left out, so a stream that is read again changes nothing. Only at its end is the
//! store's coverage said to be that of both.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use super::Source;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::engine::time::NO_WATERMARK;
use crate::engine::values::{OfSlice, values_entry};
use crate::error::{Error, Result};
use crate::exact::sort::sort_unique;
use crate::format::kept;
use crate::format::transfer::{self, Block, Head, MovedClaim, MovedValue};
use crate::shard::control::ClaimRequest;
use crate::stats::Imported;
use crate::time::Timestamp;

/// Digests that are gathered before they are written: 64 MiB.
const MOST_GATHERED: usize = 4 << 20;
/// Bytes of values that are gathered.
const MOST_VALUE_BYTES: usize = 32 << 20;
/// Digests that are looked up under one lock.
const STEP: usize = 256;
/// Blocks of the filter that are on their way.
const AHEAD: usize = 16;

/// From the time of the other store to that of this one.
struct Import<'a> {
    head: &'a Head,
    shift_ns: i64,
    keys: BTreeMap<u64, Vec<Digest>>,
    gathered: usize,
    values: BTreeMap<u64, OfSlice>,
    value_bytes: usize,
    imported: Imported,
    /// What was read, to be compared with what was written.
    read: [u64; 3],
}

impl Import<'_> {
    fn here_ns(&self, there_ns: i64) -> i64 {
        there_ns.saturating_add(self.shift_ns)
    }
}

impl Engine {
    pub(crate) fn import(&self, from: &mut dyn Read) -> Result<Imported> {
        self.refuse_transfer()?;
        let mut source = Source::begin(from)?;
        let head = source.head.clone();
        self.refuse_other_keys(&head)?;
        let mut import = self.begin_import(&head)?;
        loop {
            match source.next()? {
                Block::Keys { end_ns, digests } => self.take_keys(&mut import, end_ns, digests)?,
                Block::Values { end_ns, values } => {
                    self.take_values(&mut import, end_ns, values)?
                }
                Block::Claims(claims) => self.take_claims(&mut import, &claims)?,
                Block::End(counts) if counts == import.read => break,
                Block::End(_) => return Err(source.damaged("blocks are missing before it")),
            }
        }
        self.keep_keys(&mut import)?;
        self.keep_values(&mut import)?;
        self.vouch_for(&import)?;
        self.grow_if_due();
        self.schedule_merge();
        import.imported.guaranteed_since = self.guaranteed_since();
        Ok(import.imported)
    }

    /// A digest says nothing to who has another secret.
    fn refuse_other_keys(&self, head: &Head) -> Result<()> {
        let mismatch = |field, detail: String| Err(Error::Mismatch { field, detail });
        if head.digest != self.header.digest {
            let (there, here) = (head.digest.name(), self.header.digest.name());
            return mismatch("digest", format!("the stream has {there}, this store {here}"));
        }
        if head.event_time != self.config.event_time {
            let detail = "the stream is of a store of the other mode of time";
            return mismatch("event_time", detail.to_owned());
        }
        if head.fingerprint != transfer::fingerprint(&self.header.secret) {
            return mismatch("secret", "the stream is of a store with another one".to_owned());
        }
        Ok(())
    }

    fn begin_import<'a>(&self, head: &'a Head) -> Result<Import<'a>> {
        let mut shift_ns = 0;
        if self.config.event_time {
            if head.now_ns != NO_WATERMARK {
                self.advance_to(Timestamp::from_unix_nanos(head.now_ns))?;
            }
        } else {
            self.tick()?;
            // What has passed since; a wall clock that lags behind makes keys live longer, not shorter.
            let passed_ns = self.time.anchor(0).wall_ns.saturating_sub(head.wall_ns).max(0);
            shift_ns = self.time.now().saturating_sub(head.now_ns).saturating_sub(passed_ns);
            let oldest_ns = head.now_ns.saturating_sub(head.window_ns).saturating_add(shift_ns);
            self.make_room_before(oldest_ns)?;
        }
        Ok(Import {
            head,
            shift_ns,
            keys: BTreeMap::new(),
            gathered: 0,
            values: BTreeMap::new(),
            value_bytes: 0,
            imported: Imported {
                keys: 0,
                known: 0,
                expired: 0,
                values: 0,
                claims: 0,
                guaranteed_since: self.guaranteed_since(),
            },
            read: [0; 3],
        })
    }

    /// A store that is younger than its window gets the slices that it would have had.
    fn make_room_before(&self, oldest_ns: i64) -> Result<()> {
        let mut window = self.window.write();
        let now_ns = self.catalog_now(&window);
        let oldest_ns = oldest_ns.max(now_ns.saturating_sub(self.config.window_ns));
        let Some(era) = window.timeline.eras.first_mut().filter(|era| oldest_ns < era.start_ns)
        else {
            return Ok(());
        };
        let missing_ns = era.start_ns.saturating_sub(oldest_ns).unsigned_abs();
        let missing = missing_ns.div_ceil(era.slice_ns.unsigned_abs()).min(era.first - 1);
        era.first -= missing;
        let span_ns = era.slice_ns.saturating_mul(missing.cast_signed());
        era.start_ns = era.start_ns.saturating_sub(span_ns);
        let eras = window.timeline.eras.clone();
        self.publish(&mut window, now_ns, |_| {});
        drop(window);
        self.ledger.update(|manifest| manifest.eras = eras)
    }

    /// The slice that ends when one of the other store did, or next after it; `None` when that is over.
    fn slice_for(&self, end_ns: i64) -> Option<u64> {
        let catalog = self.catalog();
        if end_ns.saturating_add(self.config.window_ns) <= self.window_now() {
            return None;
        }
        let last_ns = end_ns.saturating_sub(1);
        let slice = catalog.slices.iter().find(|slice| last_ns < slice.end_ns);
        Some(slice.map_or(catalog.current, |slice| slice.sequence))
    }

    fn take_keys(&self, import: &mut Import<'_>, end_ns: i64, digests: Vec<Digest>) -> Result<()> {
        import.read[0] += digests.len() as u64;
        let Some(slice) = self.slice_for(import.here_ns(end_ns)) else {
            import.imported.expired += digests.len() as u64;
            return Ok(());
        };
        import.gathered += digests.len();
        import.keys.entry(slice).or_default().extend(digests);
        if import.gathered >= MOST_GATHERED { self.keep_keys(import) } else { Ok(()) }
    }

    fn keep_keys(&self, import: &mut Import<'_>) -> Result<()> {
        let _gate = self.maintenance.gate.read();
        self.stopping()?;
        let mut scratch = Vec::new();
        for (slice, mut digests) in std::mem::take(&mut import.keys) {
            sort_unique(&mut digests, &mut scratch);
            let unknown = self.unknown_in(slice, &digests)?;
            if !unknown.is_empty() {
                self.keep_sorted(slice, &unknown)?;
            }
            import.imported.keys += unknown.len() as u64;
            import.imported.known += (digests.len() - unknown.len()) as u64;
        }
        import.gathered = 0;
        Ok(())
    }

    /// Those of the digests, which are in order, that neither the slice nor a newer one holds, and that were
    /// not forgotten here.
    fn unknown_in(&self, slice: u64, digests: &[Digest]) -> Result<Vec<Digest>> {
        let mut unknown = Vec::with_capacity(digests.len());
        let bits = self.config.shard_bits;
        for of_shard in digests.chunk_by(|one, next| one.shard(bits) == next.shard(bits)) {
            for (step, some) in of_shard.chunks(STEP).enumerate() {
                let shard = self.enter(self.shard_of(some[0]))?;
                for (at, digest) in some.iter().enumerate() {
                    if let Some(later) = of_shard.get(step * STEP + at + AHEAD) {
                        self.prefetch(*later);
                    }
                    let mask = shard.suspects(*digest);
                    let known = shard.tombstones.contains_key(digest)
                        || shard.find(*digest, mask)?.is_some_and(|found| found >= slice);
                    if !known {
                        unknown.push(*digest);
                    }
                }
            }
        }
        Ok(unknown)
    }

    fn take_values(
        &self,
        import: &mut Import<'_>,
        end_ns: i64,
        values: Vec<MovedValue>,
    ) -> Result<()> {
        import.read[1] += values.len() as u64;
        let Some(slice) = self.slice_for(import.here_ns(end_ns)) else { return Ok(()) };
        for MovedValue { digest, tag, bytes } in values {
            if let Err(why) = kept::verified(digest, &bytes) {
                return Err(Error::corrupt(
                    super::STREAM,
                    format!("what is kept with a key: {why}"),
                ));
            }
            import.value_bytes += bytes.len() + 128;
            import.values.entry(slice).or_default().insert((digest, tag), Arc::from(bytes));
        }
        if import.value_bytes >= MOST_VALUE_BYTES { self.keep_values(import) } else { Ok(()) }
    }

    fn keep_values(&self, import: &mut Import<'_>) -> Result<()> {
        let _gate = self.maintenance.gate.read();
        self.stopping()?;
        import.value_bytes = 0;
        for (slice, mut values) in std::mem::take(&mut import.values) {
            let mut failed = Ok(());
            values.retain(|(digest, tag), _| {
                let is_new = self.enter(self.shard_of(*digest)).and_then(|shard| {
                    let forgotten = shard.tombstones.contains_key(digest);
                    Ok(!forgotten && shard.value(*digest, slice, *tag)?.is_none())
                });
                is_new.unwrap_or_else(|error| {
                    failed = Err(error);
                    false
                })
            });
            failed?;
            if values.is_empty() {
                continue;
            }
            import.imported.values += values.len() as u64;
            let file = Arc::new(self.write_values_of(slice, &values)?);
            let named = self.ledger.storage().sync_names().and_then(|()| {
                self.ledger.update(|manifest| manifest.values.push(values_entry(&file)))
            });
            named.inspect_err(|_| self.remove_values(std::slice::from_ref(&file)))?;
            self.tools.has_kept.store(true, Release);
            self.change_slices(|of| of.extend(&[], std::slice::from_ref(&file)));
        }
        Ok(())
    }

    /// Who held a claim there is nobody here: it is listed, and taken over when its lease has run out.
    fn take_claims(&self, import: &mut Import<'_>, claims: &[MovedClaim]) -> Result<()> {
        import.read[2] += claims.len() as u64;
        // The keys first: a claim on one that is live is none.
        self.keep_keys(import)?;
        let mut call = self.begin()?;
        let mut taken = Ok(());
        for claim in claims {
            let digest = claim.digest;
            taken = self.enter(self.shard_of(digest)).and_then(|mut shard| {
                let mask = shard.suspects(digest);
                if shard.claims.contains_key(&digest) || shard.find(digest, mask)?.is_some() {
                    return Ok(());
                }
                let request = ClaimRequest {
                    digest,
                    now_ns: self.time.now_for(claim.lease_left_ns),
                    lease_ns: claim.lease_left_ns,
                    event_ns: claim.event_ns,
                    note: &claim.note,
                    fingerprint: claim.fingerprint,
                };
                let token = self.claims.token();
                shard.grant(&self.tools, &mut call, &request, token)?;
                import.imported.claims += 1;
                Ok(())
            });
            if taken.is_err() {
                break;
            }
        }
        taken.and(self.finish(call))
    }

    /// All is here: what both stores vouch for, this one does now.
    fn vouch_for(&self, import: &Import<'_>) -> Result<()> {
        let since_ns = import.here_ns(import.head.since_ns);
        let begun_ns = match self.config.event_time {
            true => import.head.now_ns,
            false => self.header.created_ns,
        };
        self.ledger.update(|manifest| {
            let complete_since_ns = &mut manifest.complete_since_ns;
            // A store that has lost nothing since its beginning begins earlier now.
            let is_whole = *complete_since_ns == begun_ns || *complete_since_ns == i64::MIN;
            *complete_since_ns = if is_whole { since_ns } else { since_ns.max(*complete_since_ns) };
        })
    }
}
