//! The bare path of a new key as a contestant: it decides nothing, and nothing that does can be
//! faster. What the others take is shown as a multiple of it, from the same run.

use std::path::Path;

use parking_lot::Mutex;

use super::Contestant;
use crate::args::Result;
use crate::floor::bare;
use crate::keys::Key;

pub(crate) struct Floor(Mutex<bare::Path>);

/// The filter of so many live keys.
const BYTES_A_KEY: u64 = 4;

impl Floor {
    pub(crate) fn new(live: u64, dir: &Path) -> Result<Self> {
        let bytes = usize::try_from(live * BYTES_A_KEY)?.next_multiple_of(2 << 20);
        Ok(Floor(Mutex::new(bare::Path::of_size(bytes, dir)?)))
    }
}

impl Contestant for Floor {
    fn name(&self) -> &'static str {
        "floor (decides nothing)"
    }

    fn decides(&self) -> bool {
        false
    }

    fn advance(&self, _now: u64) {}

    fn observe_each(&self, keys: &[Key], _answers: &mut [bool]) {
        self.0.lock().each(keys);
    }

    fn observe_batches(&self, keys: &[Key], _batch: usize, _answers: &mut [bool]) {
        self.0.lock().batches(keys, 1);
    }
}
