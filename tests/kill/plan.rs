//! What a child does, as a function of seed, cycle, worker and number: the parent knows it without
//! being told.

use std::time::Duration;

use onceonly::{Builder, Dedup};

use crate::common::Rng;

/// One operation; each has keys of its own, but for `Forget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Observe,
    Batch(u32),
    ClaimAndCommit,
    ClaimAndCommitBatch(u32),
    /// Claimed, and in flight until the end.
    Hold,
    Abandon,
    /// Forgets the key of an earlier `Observe`, this many operations back.
    Forget(usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) seed: u64,
    pub(crate) cycle: u64,
    pub(crate) worker: usize,
}

impl Author {
    pub(crate) fn plan(&self, op: usize) -> Plan {
        let plan = self.draw(op);
        match plan {
            Plan::Forget(back) if back > op => Plan::Observe,
            Plan::Forget(back) if self.draw(op - back) != Plan::Observe => Plan::Observe,
            plan => plan,
        }
    }

    fn draw(&self, op: usize) -> Plan {
        let worker = self.worker as u64 * 7_919;
        let mix = self.seed ^ (self.cycle << 32) ^ (worker << 20) ^ op as u64;
        let mut rng = Rng::new(mix);
        match rng.below(20) {
            0..8 => Plan::Observe,
            8..12 => Plan::Batch(1 + rng.below(100) as u32),
            12..14 => Plan::ClaimAndCommit,
            14 => Plan::ClaimAndCommitBatch(1 + rng.below(20) as u32),
            15 => Plan::Hold,
            16 => Plan::Abandon,
            // One distance only, so that no key is forgotten twice.
            _ => Plan::Forget(3),
        }
    }

    /// How much older than the newest event operation `op` is: one in four comes late, within the
    /// window.
    pub(crate) fn lateness(&self, op: usize) -> i64 {
        let mut rng = Rng::new(!(self.seed ^ (self.cycle << 32) ^ op as u64));
        if rng.below(4) == 0 { rng.below(200_000_000).cast_signed() } else { 0 }
    }

    /// What the commit of `keys(op)[part]` keeps: of every other key of a batch, and of every key by itself.
    pub(crate) fn result(&self, op: usize, part: usize) -> Option<Vec<u8>> {
        let keeps = match self.plan(op) {
            Plan::ClaimAndCommit => true,
            Plan::ClaimAndCommitBatch(_) => part.is_multiple_of(2),
            _ => false,
        };
        let mut rng = Rng::new(op as u64 ^ self.cycle << 20 ^ part as u64);
        let most = [10, 1_000, 20_000][rng.below(3) as usize];
        let len = rng.below(most) as usize;
        keeps.then(|| format!("{}.{op}.{part} ", self.worker).bytes().cycle().take(len).collect())
    }

    pub(crate) fn keys(&self, op: usize) -> Vec<String> {
        let name = |part| format!("{}.{}.{op}.{part}", self.cycle, self.worker);
        match self.plan(op) {
            Plan::Batch(count) | Plan::ClaimAndCommitBatch(count) => (0..count).map(name).collect(),
            Plan::Forget(back) => self.keys(op - back),
            _ => vec![name(0)],
        }
    }
}

/// Which clock the store of a run follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// The machine's: each restart is on the same boot, so maps are trusted as they are.
    System,
    /// A manual one, new in each process: each restart is a reboot, so everything is verified.
    Manual,
    /// The timestamps of events, on one boot.
    Event,
}

impl Time {
    pub(crate) fn window(self) -> Duration {
        match self {
            Time::System | Time::Event => Duration::from_secs(2),
            Time::Manual => Duration::from_secs(8),
        }
    }

    pub(crate) fn slices(self) -> u32 {
        match self {
            Time::System | Time::Event => 20,
            Time::Manual => 8,
        }
    }

    /// The settings of the store. It is planned far too small, so that it grows all the time.
    pub(crate) fn builder(self) -> Builder {
        Dedup::builder()
            .window(self.window())
            .slices(self.slices())
            .expected_keys(200)
            .shards(4)
            .lease(Duration::from_secs(1_000))
            .event_time(self == Time::Event)
    }
}
