//! The stream that every benchmark runs on: 36-byte UUID text keys made from an index, a share of
//! them repeated from the live window, so that every right answer is known by construction.

use std::ops::Range;

pub(crate) const KEY_LEN: usize = 36;
pub(crate) type Key = [u8; KEY_LEN];

/// Positions between two settings of the clock, at least. A multiple of every batch size, so that
/// no batch is cut.
pub(crate) const MIN_TICK: usize = 1024;

/// Where repetitions of a key are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The whole live window but for the last `MIN_TICK` new keys: one batch never holds a key
    /// twice, so that claims can run on the same stream.
    Window,
    /// Keys of earlier chunks only: what threads see that run through one chunk together, in
    /// whatever order.
    EarlierChunks,
}

/// Where the stream stands. A clone goes on with the same keys.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    seed: u64,
    position: u64,
    new: u64,
    live: u64,
    tick: usize,
    per_mille: u64,
    repeat: Repeat,
}

/// Keys in memory, with their right answers.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) keys: Vec<Key>,
    /// Whether the key was in the stream before, within the window.
    pub(crate) repeated: Vec<bool>,
    pub(crate) ticks: Vec<Tick>,
}

/// A run of keys at one instant.
#[derive(Clone, Debug)]
pub(crate) struct Tick {
    pub(crate) range: Range<usize>,
    /// New keys before this tick: the stream's time, of which `live` make one window.
    pub(crate) now: u64,
}

impl Stream {
    /// A stream whose last `live` new keys are the window, `per_mille` of it repetitions.
    pub(crate) fn new(seed: u64, live: u64, per_mille: u64, repeat: Repeat) -> Self {
        let tick = usize::try_from(live / 1024).expect("fits").next_multiple_of(MIN_TICK);
        assert!(live >= 16 * tick as u64, "a window of {live} keys is too small to be measured");
        Stream { seed, position: 0, new: 0, live, tick: tick.max(MIN_TICK), per_mille, repeat }
    }

    /// The share of repetitions from here on.
    pub(crate) fn set_per_mille(&mut self, per_mille: u64) {
        self.per_mille = per_mille;
    }

    /// Keys that were new so far.
    pub(crate) fn new_keys(&self) -> u64 {
        self.new
    }

    /// `live / parts` positions, in whole ticks.
    pub(crate) fn part(&self, parts: u64) -> usize {
        usize::try_from(self.live / parts).expect("fits").next_multiple_of(self.tick)
    }

    /// Fills `chunk` with the next `len` keys.
    pub(crate) fn fill(&mut self, len: usize, chunk: &mut Chunk) {
        chunk.clear();
        let base = self.new;
        for start in (0..len).step_by(self.tick) {
            let end = (start + self.tick).min(len);
            chunk.ticks.push(Tick { range: start..end, now: self.new });
            for _ in start..end {
                let (key, repeated) = self.next(base, len as u64);
                chunk.keys.push(key);
                chunk.repeated.push(repeated);
            }
        }
    }

    fn next(&mut self, base: u64, len: u64) -> (Key, bool) {
        let draw = mix(self.seed ^ self.position.rotate_left(32) ^ 0x5bf0_3635);
        self.position += 1;
        // The clock stands still within a tick, so a key may look two ticks older than it is.
        let reach = self.live - 2 * self.tick as u64;
        let (oldest, end) = match self.repeat {
            Repeat::Window => {
                (self.new.saturating_sub(reach), self.new.saturating_sub(MIN_TICK as u64))
            }
            // A thread that runs ahead of the one that moves the clock records its keys up to a
            // chunk too early, and asks for them up to a chunk late.
            Repeat::EarlierChunks => ((base + 2 * len).saturating_sub(reach), base),
        };
        if draw % 1000 < self.per_mille && oldest < end {
            let index = oldest + mix(draw) % (end - oldest);
            return (key(self.seed, index), true);
        }
        self.new += 1;
        (key(self.seed, self.new - 1), false)
    }
}

impl Chunk {
    fn clear(&mut self) {
        self.keys.clear();
        self.repeated.clear();
        self.ticks.clear();
    }

    /// Compares answers (`true`: seen before) with the right ones: (missed, invented) repetitions.
    pub(crate) fn check(&self, answers: &[bool]) -> (u64, u64) {
        assert_eq!(answers.len(), self.repeated.len());
        let pairs = || self.repeated.iter().zip(answers);
        let missed = pairs().filter(|&(&right, &given)| right && !given).count();
        let invented = pairs().filter(|&(&right, &given)| !right && given).count();
        (missed as u64, invented as u64)
    }
}

/// The text of a version-4 UUID made from `index`.
pub(crate) fn key(seed: u64, index: u64) -> Key {
    let first = mix(index ^ seed);
    let second = mix(first ^ index.rotate_left(17) ^ 0x9e37_79b9);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_be_bytes());
    bytes[8..].copy_from_slice(&second.to_be_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; KEY_LEN];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at..at + 2].copy_from_slice(&HEX[usize::from(byte)]);
        at += 2;
    }
    text
}

const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// The finalizer of SplitMix64: a bijection that scatters consecutive numbers.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
