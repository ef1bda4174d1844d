//! `explain`: where a store holds one key.

use super::View;
use super::inspect::claim_info;
use crate::catalog::Slice;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::explain::{Explanation, KeyState, KeyTrace, Sighting, sightings};
use crate::format::kept::{self, KEPT, Kept, TALLY};
use crate::replay::Replay;
use crate::storage::Storage;

impl View {
    pub(super) fn explain(&self, digest: Digest) -> Result<Explanation> {
        let slices = self.slices(self.now_ns()?)?;
        let mut unsealed = Vec::new();
        let mut control = self.read_journal(|slice, found| {
            if found == digest {
                unsealed.push(slice);
            }
        })?;
        let sightings = sightings(&slices, &unsealed, digest)?;
        let state = self.state(digest, &control, sightings.last(), self.clock_ns()?);
        let text = format!("{:016x}{:016x}", digest.hi, digest.lo);
        let trace = match (&state, sightings.last()) {
            (KeyState::Live { .. }, Some(newest)) => {
                let slice = slices.iter().find(|slice| slice.sequence == newest.slice);
                slice.map(|slice| self.trace(digest, slice, &mut control)).transpose()?.flatten()
            }
            _ => None,
        };
        Ok(Explanation {
            state,
            digest: text,
            suspected_slices: None,
            sightings,
            trace,
            shadow: false,
        })
    }

    /// What is kept of a key that is marked in `slice`.
    fn trace(
        &self,
        digest: Digest,
        slice: &Slice,
        control: &mut Replay,
    ) -> Result<Option<KeyTrace>> {
        let mut value = |tag| -> Result<Option<Vec<u8>>> {
            let unsealed = control.kept.remove(&(digest, slice.sequence, tag));
            let mut found = unsealed.and_then(|gathered| gathered.whole());
            for values in slice.values.iter().rev() {
                if found.is_none() {
                    found = values.find(digest, tag)?;
                }
            }
            Ok(found.filter(|bytes| !bytes.is_empty()))
        };
        let damaged = |why: &str| Error::corrupt(self.storage.path(""), why);
        let (kept, tally) = (value(KEPT)?, value(TALLY)?);
        let kept = kept.map(|bytes| Kept::decode(digest, &bytes)).transpose().map_err(damaged)?;
        let refused = tally.map(|bytes| kept::decode_tally(digest, &bytes)).transpose();
        Ok(KeyTrace::new(kept, refused.map_err(damaged)?.unwrap_or(0)))
    }

    fn state(
        &self,
        digest: Digest,
        control: &Replay,
        newest: Option<&Sighting>,
        clock_ns: i64,
    ) -> KeyState {
        if control.tombstones.get(&digest).is_some_and(|tombstone| tombstone.revived == 0) {
            return KeyState::Forgotten;
        }
        if let Some(newest) = newest {
            return KeyState::live(newest, self.manifest.geometry.window_ns);
        }
        match control.claims.get(&digest) {
            Some(claim) => {
                let info = claim_info(digest, claim, clock_ns);
                KeyState::InFlight { token: info.token, lease_left: info.lease_left }
            }
            None => KeyState::Unknown,
        }
    }
}
