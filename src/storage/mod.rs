//! Where the bytes live: a directory of mapped files, or the heap. Everything above works on
//! [`Region`]s and names, and does not know which.

mod dir;
mod dirty;
mod heap;
mod origin;
mod place;
mod region;
#[cfg(feature = "test-storage")]
pub(crate) mod sim;

use std::path::PathBuf;

pub(crate) use dir::DirStorage;
pub(crate) use heap::{HeapStorage, allocate};
pub(crate) use origin::{Origin, Seat};
#[cfg(feature = "test-storage")]
pub(crate) use place::refuse_unfit;
pub(crate) use region::{Advice, Region, SharedCell, prefetch, prefetch_block};

use crate::error::Result;

/// A file that is written by calls, not through a map.
pub(crate) trait FileWriter: Send {
    /// Writes `bytes` at `offset`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Makes what was written survive power loss. After an error the file must not be used any
    /// more: the kernel may have dropped the pages, and the next sync would succeed without them.
    fn sync(&mut self) -> Result<()>;

    /// Ends writing, and maps the file for reading.
    fn map(self: Box<Self>) -> Result<Region>;
}

/// A flat set of named files. Names come from `format::names` alone.
pub(crate) trait Storage: Send + Sync {
    /// A new file of `len` zero bytes, its space fully allocated (a store to a hole of a full disk
    /// would kill the process), mapped for writing. On an error nothing is left behind.
    fn create(&self, name: &str, len: u64) -> Result<Region>;

    /// A new file of `len` bytes, its space fully allocated, to be written from front to back. Far
    /// cheaper than storing into a fresh map (2 against 16 ns for 16 bytes).
    fn create_written(&self, name: &str, len: u64) -> Result<Box<dyn FileWriter>>;

    /// An existing file, mapped for writing or for reading only.
    fn open(&self, name: &str, writable: bool) -> Result<Region>;

    /// The whole content of a small file; `None` if there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Replaces a small file whole: written beside it, synced, renamed over it, the directory
    /// synced. After a crash either the old or the new content is there; after an error too, and it
    /// may be the new one. `content` is given the stamp of the new file.
    fn replace(&self, name: &str, content: &dyn Fn(u64) -> Vec<u8>) -> Result<()>;

    /// Tells a file from every other that was there under its name, by inode and birth time; zero
    /// where nothing tells. A file that was restored has another one, whichever way it was.
    fn stamp(&self, name: &str) -> Result<u64>;

    /// Removes a file. What is mapped stays mapped.
    fn remove(&self, name: &str) -> Result<()>;

    /// Moves a file that is not ours to `set-aside/`, where nothing looks.
    fn set_aside(&self, name: &str) -> Result<()>;

    /// All files, `set-aside/` excepted.
    fn list(&self) -> Result<Vec<String>>;

    /// Writes a region's dirty pages to the disk and waits for it.
    fn sync(&self, name: &str, region: &Region) -> Result<()>;

    /// An error says that the kernel could not write back some pages of a map, since the file was
    /// opened or since this was asked last. It takes them for clean now, and may drop them: a later
    /// sync would succeed without them. That there is no error says nothing of pages that were not
    /// written yet.
    fn written_back(&self, name: &str, region: &Region) -> Result<()>;

    /// Makes creations, renames and removals survive power loss.
    fn sync_names(&self) -> Result<()>;

    /// What identifies the files' place: file system, inode and birth time of the header file. A copy
    /// or a restored backup has another one.
    fn place(&self) -> Result<[u8; 24]>;

    /// Identifies the boot of the machine: what was mapped on another one is not trusted.
    fn boot_id(&self) -> [u8; 16];

    /// Gives the directory to its next owner.
    fn release(&self);

    /// Bytes of maps that may be changed all the time without writers being held up.
    fn dirty_room(&self) -> u64;

    /// Whether anything outlives the process.
    fn is_lasting(&self) -> bool;

    /// The path to name in an error.
    fn path(&self, name: &str) -> PathBuf;

    /// Bytes allocated by all files.
    fn allocated_bytes(&self) -> u64;
}
