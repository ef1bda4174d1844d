//! One number of all that tells a server from what it was before.

/// FNV-1a: kept in tables, so it is the same in every release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix(u64);

impl Mix {
    /// Begins with a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Mix(0xcbf2_9ce4_8422_2325).bytes(text.as_bytes())
    }

    /// Goes on with a number.
    #[must_use]
    pub fn and(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Mix(bytes.iter().fold(self.0, step))
    }
}
