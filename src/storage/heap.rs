//! Storage that keeps nothing: regions of the heap under names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::{FileWriter, Region, Storage};
use crate::error::{Error, Result};

/// An empty heap storage is an empty store; it goes with its last region.
#[derive(Default)]
pub(crate) struct HeapStorage {
    files: Mutex<BTreeMap<String, File>>,
}

enum File {
    Mapped(Region),
    Small(Vec<u8>),
}

/// Regions of this size and more come from an anonymous map, where huge pages can be had.
#[cfg(not(miri))]
const MAP_FROM: u64 = 1 << 21;

/// Zero bytes that no file stands behind; `None` when memory is refused.
pub(crate) fn allocate(len: u64) -> Option<Region> {
    #[cfg(not(miri))]
    if len >= MAP_FROM {
        let map = memmap2::MmapMut::map_anon(usize::try_from(len).ok()?).ok()?;
        return Some(Region::mapped(map.into()));
    }
    Region::heap(usize::try_from(len).ok()?)
}

impl FileWriter for Region {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_bytes(offset as usize, bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn map(self: Box<Self>) -> Result<Region> {
        Ok(*self)
    }
}

impl Storage for HeapStorage {
    fn create(&self, name: &str, len: u64) -> Result<Region> {
        let region = allocate(len).ok_or_else(|| {
            Error::io("allocating", self.path(name), std::io::ErrorKind::OutOfMemory)
        })?;
        self.files.lock().insert(name.to_owned(), File::Mapped(region.clone()));
        Ok(region)
    }

    fn create_written(&self, name: &str, len: u64) -> Result<Box<dyn FileWriter>> {
        Ok(Box::new(self.create(name, len)?))
    }

    fn open(&self, name: &str, _writable: bool) -> Result<Region> {
        match self.files.lock().get(name) {
            Some(File::Mapped(region)) => Ok(region.clone()),
            _ => Err(Error::io("opening", self.path(name), std::io::ErrorKind::NotFound)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(match self.files.lock().get(name) {
            Some(File::Small(bytes)) => Some(bytes.clone()),
            _ => None,
        })
    }

    fn replace(&self, name: &str, content: &dyn Fn(u64) -> Vec<u8>) -> Result<()> {
        self.files.lock().insert(name.to_owned(), File::Small(content(0)));
        Ok(())
    }

    fn stamp(&self, _name: &str) -> Result<u64> {
        Ok(0)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn set_aside(&self, name: &str) -> Result<()> {
        self.remove(name)
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn sync(&self, _name: &str, _region: &Region) -> Result<()> {
        Ok(())
    }

    fn written_back(&self, _name: &str, _region: &Region) -> Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        Ok(())
    }

    fn place(&self) -> Result<[u8; 24]> {
        Ok([0; 24])
    }

    fn boot_id(&self) -> [u8; 16] {
        [0; 16]
    }

    fn release(&self) {}

    fn dirty_room(&self) -> u64 {
        u64::MAX
    }

    fn is_lasting(&self) -> bool {
        false
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("(memory)/{name}"))
    }

    fn allocated_bytes(&self) -> u64 {
        let size = |file: &File| match file {
            File::Mapped(region) => region.len() as u64,
            File::Small(bytes) => bytes.len() as u64,
        };
        self.files.lock().values().map(size).sum()
    }
}
