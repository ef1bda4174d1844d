//! Which file it is: one that was restored, copied or moved is another, and may lack what was in
//! it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use onceonly_sql_common::Mix;

/// What tells one file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    inode: u64,
    /// When it was made, in nanoseconds; 0 where the file system does not know.
    born: u64,
}

impl File {
    pub(crate) fn at(path: &Path) -> io::Result<File> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path)?;
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |since| since.as_nanos() as u64);
        Ok(File { inode: metadata.ino(), born })
    }

    /// One number of all that says what the file has lost: `generation` is in the file, and
    /// `boot` is that of the machine where power loss counts.
    pub(crate) fn incarnation(self, generation: i64, boot: &str) -> u64 {
        let numbers = [self.inode, self.born, generation.cast_unsigned()];
        numbers.into_iter().fold(Mix::of(boot), Mix::and).get()
    }
}

/// Another text after each boot; empty where the machine does not tell.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
