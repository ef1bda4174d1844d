//! Telling another store what is live here.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use super::{Out, STREAM};
use crate::catalog::Slice;
use crate::digest::{Digest, DigestMap};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::chunk;
use crate::format::transfer::{self, Head, Kind, MOST_BYTES, MOST_DIGESTS, MovedClaim, MovedValue};
use crate::journal::Segment;
use crate::stats::Exported;

/// What the files of a slice do not have yet.
#[derive(Default)]
struct Unsealed {
    /// A chunk of the journal, its slice, and how many digests it had.
    chunks: Vec<(Arc<Segment>, u32, u64, u8)>,
    /// What was forgotten, and the slice in which it was seen again, zero if it was not.
    forgotten: DigestMap<u64>,
    /// Values by slice, digest and tag.
    kept: BTreeSet<(u64, Digest, u8)>,
    claims: Vec<MovedClaim>,
}

impl Unsealed {
    fn is_live(&self, slice: u64, digest: Digest) -> bool {
        self.forgotten.is_empty()
            || self.forgotten.get(&digest).is_none_or(|revived| *revived == slice)
    }
}

/// Digests of one slice on their way.
struct Keys<'a, 'b> {
    out: &'a mut Out<'b>,
    end_ns: i64,
    content: Vec<u8>,
    count: u64,
}

impl Keys<'_, '_> {
    fn push(&mut self, digest: Digest) -> Result<()> {
        if self.content.is_empty() {
            self.content.extend_from_slice(&self.end_ns.to_le_bytes());
        }
        self.content.extend_from_slice(&digest.to_bytes());
        self.count += 1;
        if self.content.len() >= MOST_DIGESTS * 16 { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<()> {
        if !self.content.is_empty() {
            self.out.block(Kind::Keys, &self.content)?;
            self.content.clear();
        }
        Ok(())
    }
}

impl Engine {
    pub(crate) fn export(&self, to: &mut dyn Write) -> Result<Exported> {
        self.refuse_transfer()?;
        let _gate = self.maintenance.gate.read();
        self.stopping()?;
        self.tick()?;
        let since = self.guaranteed_since();
        // Before the catalog is taken: what is sealed meanwhile is in both.
        let unsealed = self.unsealed()?;
        // What was undecided is decided now; a mark whose sync fails is taken out again.
        self.sync_log()?;
        let catalog = self.catalog();
        let head = self.transfer_head(since.as_unix_nanos());
        let mut out = Out::begin(to, &head)?;
        let mut exported =
            Exported { keys: 0, values: 0, claims: 0, bytes: 0, guaranteed_since: since };
        for slice in &catalog.slices {
            exported.keys += self.export_keys(&mut out, slice, &unsealed)?;
            exported.values += self.export_values(&mut out, slice, &unsealed)?;
        }
        exported.claims = export_claims(&mut out, &unsealed.claims)?;
        let counts = [exported.keys, exported.values, exported.claims];
        let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        out.block(Kind::End, &counts)?;
        exported.bytes = out.bytes;
        to.flush().map_err(|e| Error::io("writing", STREAM, e))?;
        Ok(exported)
    }

    fn transfer_head(&self, since_ns: i64) -> Head {
        let config = &self.config;
        Head {
            digest: self.header.digest,
            event_time: config.event_time,
            fingerprint: transfer::fingerprint(&self.header.secret),
            now_ns: self.window_now(),
            wall_ns: self.time.anchor(0).wall_ns,
            since_ns,
            window_ns: config.window_ns,
            slices: config.slices,
            expected_keys: config.expected_keys,
            false_positive_rate: config.false_positive_rate.to_bits(),
            lease_ns: config.lease_ns,
        }
    }

    fn unsealed(&self) -> Result<Unsealed> {
        let mut unsealed = Unsealed::default();
        let now_ns = self.time.now();
        for index in 0..self.shards.len() {
            let shard = self.enter(index)?;
            for set in shard.frozen.iter().map(|set| &**set).chain(&shard.active) {
                let fills = set.fills().map(|(number, slice, filled)| {
                    (Arc::clone(&set.segment), number, slice, filled)
                });
                unsealed.chunks.extend(fills);
                let kept = set.kept().into_iter().flat_map(|kept| kept.iter());
                unsealed.kept.extend(kept.map(|(digest, item)| (item.slice, digest, item.tag)));
            }
            let forgotten = shard.tombstones.iter();
            unsealed.forgotten.extend(forgotten.map(|(digest, t)| (*digest, t.revived)));
            unsealed.claims.extend(shard.claims.iter().map(|(digest, claim)| MovedClaim {
                digest: *digest,
                lease_left_ns: crate::time::nanos(claim.lease_left(now_ns)),
                event_ns: claim.event_ns,
                fingerprint: claim.kept.as_ref().and_then(|kept| kept.fingerprint),
                note: claim.note.to_vec(),
            }));
        }
        Ok(unsealed)
    }

    fn export_keys(&self, out: &mut Out<'_>, slice: &Slice, unsealed: &Unsealed) -> Result<u64> {
        let mut keys = Keys { out, end_ns: slice.end_ns, content: Vec::new(), count: 0 };
        let number = slice.sequence;
        let mut digests = Vec::new();
        for run in &slice.runs {
            for page in spread(run.page_count()) {
                digests.clear();
                run.read_page(page, &mut digests)?;
                let live = digests.iter().filter(|digest| unsealed.is_live(number, **digest));
                live.copied().try_for_each(|digest| keys.push(digest))?;
            }
            self.stopping()?;
        }
        for (segment, chunk, _, filled) in unsealed.chunks.iter().filter(|c| c.2 == number) {
            let page = segment.chunk(*chunk);
            let found =
                (1..=usize::from(*filled)).filter_map(|slot| chunk::read_digest(page, slot));
            let mut live = found.filter(|digest| unsealed.is_live(number, *digest));
            live.try_for_each(|digest| keys.push(digest))?;
        }
        keys.end()?;
        Ok(keys.count)
    }

    fn export_values(&self, out: &mut Out<'_>, slice: &Slice, unsealed: &Unsealed) -> Result<u64> {
        let (number, mut content, mut count) = (slice.sequence, Vec::new(), 0);
        let first = (number, Digest { hi: 0, lo: 0 }, 0);
        let here = unsealed.kept.range(first..).take_while(|kept| kept.0 == number);
        let mut named: BTreeSet<(Digest, u8)> =
            here.map(|(_, digest, tag)| (*digest, *tag)).collect();
        for values in &slice.values {
            for page in 0..values.page_count() {
                named.extend(values.read_page(page)?.iter().map(|entry| entry.key()));
            }
        }
        for (digest, tag) in named {
            if !unsealed.is_live(number, digest) {
                continue;
            }
            let shard = self.enter(self.shard_of(digest))?;
            let Some(bytes) = shard.value(digest, number, tag)? else { continue };
            drop(shard);
            if content.len() + bytes.len() + 64 > MOST_BYTES {
                out.block(Kind::Values, &content)?;
                content.clear();
            }
            if content.is_empty() {
                content.extend_from_slice(&slice.end_ns.to_le_bytes());
            }
            MovedValue { digest, tag, bytes: bytes.to_vec() }.encode(&mut content);
            count += 1;
        }
        if !content.is_empty() {
            out.block(Kind::Values, &content)?;
        }
        Ok(count)
    }
}

/// Pages that are read together.
const UNIT: usize = 4;
/// So many units, from all over a file, follow each other: 65,536 digests.
const SPREAD: usize = 64;

/// The pages of a sealed file in an order in which digests that follow each other are from all of its range.
/// Whoever reads the stream makes files of a part of it, and look-ups rely on uniform digests there.
fn spread(pages: usize) -> impl Iterator<Item = usize> {
    let units = pages.div_ceil(UNIT);
    let stride = (units / SPREAD).max(1);
    let order = (0..stride).flat_map(move |first| (first..units).step_by(stride));
    order.flat_map(move |unit| unit * UNIT..pages.min((unit + 1) * UNIT))
}

fn export_claims(out: &mut Out<'_>, claims: &[MovedClaim]) -> Result<u64> {
    let mut content = Vec::new();
    for claim in claims {
        if content.len() + claim.note.len() + 64 > MOST_BYTES {
            out.block(Kind::Claims, &content)?;
            content.clear();
        }
        claim.encode(&mut content);
    }
    if !content.is_empty() {
        out.block(Kind::Claims, &content)?;
    }
    Ok(claims.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_read_once_and_neighbours_are_far_apart() {
        for pages in [1, 2, 3, 4, 5, 255, 256, 257, 5_000, 40_001] {
            let order: Vec<usize> = spread(pages).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..pages), "{pages}");
            // A tenth of the stream is from all over the file.
            let part = &order[..pages.div_ceil(10)];
            let mean = part.iter().sum::<usize>() as f64 / part.len() as f64;
            let middle = pages as f64 / 2.0;
            assert!(pages < 5_000 || (mean - middle).abs() < middle * 0.1, "{pages}: {mean}");
        }
    }
}
