//! Loading all that the owner before has written: sorted files, one a slice, and the filter's bits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Owner;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::engine::seal::entry;
use crate::error::{Error, Result};
use crate::exact::run::RunWriter;
use crate::exact::sort::sort_unique;
use crate::format::names::Kind;
use crate::shard::Target;
use crate::stats::WarmUp;

/// Digests that are gathered before they are written: 64 MiB.
const MOST_GATHERED: usize = 4 << 20;
/// Digests that the filter gets under one lock: a few microseconds.
const STEP: usize = 256;
/// Blocks of the filter that are on their way.
const AHEAD: usize = 16;

/// What was read and is not kept yet.
#[derive(Default)]
struct Gathered {
    /// By slice.
    digests: BTreeMap<u64, Vec<Digest>>,
    count: usize,
    parts: Vec<u32>,
}

impl Engine {
    pub(crate) fn warm_up(&self, mut progress: impl FnMut(WarmUp)) -> Result<()> {
        self.refuse_forked()?;
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let Some(owner) = self.owned.get() else { return Ok(()) };
        self.hold(owner)?;
        let mut gathered = Gathered::default();
        let mut keys = 0;
        while !owner.foreign.is_complete() {
            if self.is_closed() {
                return Err(Error::Closed);
            }
            let next = owner.foreign.next_parts_after(gathered.parts.last().copied());
            for (part, digests) in self.read_parts(owner, &next)? {
                keys += digests.len() as u64;
                self.gather_part(owner, &mut gathered, digests);
                gathered.parts.push(part);
            }
            if gathered.count >= MOST_GATHERED || next.is_empty() {
                self.keep_gathered(owner, std::mem::take(&mut gathered))?;
                self.look_at_foreign(owner)?;
            }
            let (loaded, parts) = owner.foreign.parts();
            let parts_loaded = (loaded + gathered.parts.len() as u64).min(parts);
            progress(WarmUp { parts_loaded, parts, keys });
        }
        Ok(())
    }

    fn gather_part(&self, owner: &Owner, gathered: &mut Gathered, digests: super::foreign::Part) {
        let mut targets: BTreeMap<i64, Option<Target>> = BTreeMap::new();
        for (digest, end_ns) in digests {
            let target = targets.entry(end_ns);
            if let Some(target) = target.or_insert_with(|| self.slice_of_end(owner, end_ns)) {
                gathered.digests.entry(target.slice).or_default().push(digest);
                gathered.count += 1;
            }
        }
    }

    /// Keeps what was read: first where it is looked up, then where it is suspected; then the parts are
    /// known.
    fn keep_gathered(&self, owner: &Owner, gathered: Gathered) -> Result<()> {
        let _gate = self.maintenance.gate.read();
        self.stopping()?;
        let mut scratch = Vec::new();
        for (slice, mut digests) in gathered.digests {
            sort_unique(&mut digests, &mut scratch);
            self.keep_sorted(slice, &digests)?;
        }
        gathered.parts.iter().for_each(|part| owner.foreign.set_loaded(*part));
        self.grow_if_due();
        self.schedule_merge();
        Ok(())
    }

    pub(in crate::engine) fn keep_sorted(&self, slice: u64, digests: &[Digest]) -> Result<()> {
        let keys = digests.len() as u64;
        self.tools.quota.take(digests.len())?;
        let file = self.ledger.next_file();
        let written = RunWriter::create(self.ledger.storage(), file, slice, keys)
            .and_then(|mut writer| {
                writer.push_all(digests)?;
                writer.finish(self.header.store)
            })
            .and_then(|run| {
                self.ledger.storage().sync_names()?;
                self.ledger.update(|manifest| manifest.runs.push(entry(&run)))?;
                Ok(Arc::new(run))
            });
        // What the limit counts is counted as found.
        self.tools.quota.give_back(keys.cast_signed());
        let run = match written {
            Ok(run) => run,
            Err(error) => {
                self.remove_file(Kind::Run, file);
                return Err(error);
            }
        };
        self.tools.quota.found_sealed(slice, keys);
        self.change_slices(|of| {
            if of.sequence == slice {
                of.runs.push(Arc::clone(&run));
            }
        });
        self.show_all(slice, digests)
    }

    /// Has the filters suspect digests, which are in order.
    fn show_all(&self, slice: u64, digests: &[Digest]) -> Result<()> {
        let bits = self.config.shard_bits;
        for of_shard in digests.chunk_by(|one, next| one.shard(bits) == next.shard(bits)) {
            for (step, some) in of_shard.chunks(STEP).enumerate() {
                let ahead = of_shard.get((step + 1) * STEP..).unwrap_or(&[]);
                let mut shard = self.enter(self.shard_of(some[0]))?;
                let Some(live) = shard.catalog.slice(slice) else { return Ok(()) };
                let target = Target { slice, column: live.column };
                for (at, digest) in some.iter().enumerate() {
                    if let Some(later) = some.get(at + AHEAD).or_else(|| ahead.first()) {
                        self.prefetch(*later);
                    }
                    shard.show(*digest, target);
                }
            }
        }
        Ok(())
    }
}
