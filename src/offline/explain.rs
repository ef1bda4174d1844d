//! `explain`: where a store holds one key.

use super::View;
use super::inspect::claim_info;
use crate::digest::Digest;
use crate::error::Result;
use crate::explain::{Explanation, KeyState, Sighting, sightings};
use crate::replay::Replay;

impl View {
    pub(super) fn explain(&self, digest: Digest) -> Result<Explanation> {
        let slices = self.slices(self.now_ns()?)?;
        let mut unsealed = Vec::new();
        let control = self.read_journal(|slice, found| {
            if found == digest {
                unsealed.push(slice);
            }
        })?;
        let sightings = sightings(&slices, &unsealed, digest)?;
        let state = self.state(digest, &control, sightings.last(), self.clock_ns()?);
        let text = format!("{:016x}{:016x}", digest.hi, digest.lo);
        Ok(Explanation { state, digest: text, suspected_slices: None, sightings })
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
