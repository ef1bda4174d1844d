//! Where in its work a consumer is, in a file that outlives it: so that it is known where it was killed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Starting,
    Idle,
    Claiming,
    Claimed,
    Booking,
    Marked,
    Committing,
    Committed,
    Confirmed,
}

impl Place {
    pub(crate) const ALL: [Place; 9] = [
        Place::Starting,
        Place::Idle,
        Place::Claiming,
        Place::Claimed,
        Place::Booking,
        Place::Marked,
        Place::Committing,
        Place::Committed,
        Place::Confirmed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Place::Starting => "starting",
            Place::Idle => "between messages",
            Place::Claiming => "claiming",
            Place::Claimed => "claimed",
            Place::Booking => "booking",
            Place::Marked => "booked and marked, not committed",
            Place::Committing => "committing",
            Place::Committed => "committed, not confirmed",
            Place::Confirmed => "confirmed, not acknowledged",
        }
    }
}

/// The file of one consumer.
pub(crate) struct Places(File);

impl Places {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut options = File::options();
        Ok(Places(options.read(true).write(true).create(true).truncate(false).open(path)?))
    }

    pub(crate) fn set(&self, place: Place) -> Result<()> {
        Ok(self.0.write_all_at(&[place as u8], 0)?)
    }

    pub(crate) fn get(&self) -> Result<Place> {
        let mut byte = [0];
        self.0.read_exact_at(&mut byte, 0)?;
        Ok(Place::ALL[usize::from(byte[0]) % Place::ALL.len()])
    }
}
