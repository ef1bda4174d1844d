//! Storage in a directory: mapped files, one owner at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{FileWriter, Origin, Region, Storage, dirty, place};
use crate::digest::checksum;
use crate::error::{Error, Result};
use crate::format::names;
use crate::time::ClockSource;

/// A directory of which this process may be the owner.
pub(crate) struct DirStorage {
    dir: PathBuf,
    boot_id: [u8; 16],
    /// Held, and with it the lock, until it is released; and the process that holds it.
    lock: Mutex<Option<(File, Origin)>>,
}

const LOCK_POLL: Duration = Duration::from_millis(5);
/// Who looks for the owner holds the lock for an instant; longer than this it is no look.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

impl DirStorage {
    /// Creates the directory if needed and takes its lock, waiting up to `wait` for another owner.
    /// Refuses file systems where a store is not safe, unless any is allowed.
    pub(crate) fn own(dir: &Path, wait: Duration, any_filesystem: bool) -> Result<Self> {
        if !any_filesystem {
            place::refuse_unfit(dir, place::kind_of(dir))?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| Error::io("creating the directory", dir, e))?;
        refuse_foreign(dir)?;
        let path = dir.join(names::LOCK);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("opening", &path, e))?;
        wait_for_lock(&lock, &path, wait)?;
        let pid = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.write_all_at(pid.as_bytes(), 0))
            .map_err(|e| Error::io("writing", &path, e))?;
        let boot_id = ClockSource::system().boot_id();
        let origin = Origin::here(1).map_err(|e| Error::io("allocating memory for", dir, e))?;
        Ok(DirStorage { dir: dir.to_owned(), boot_id, lock: Mutex::new(Some((lock, origin))) })
    }

    /// Takes the machine for booted anew.
    #[cfg(feature = "test-storage")]
    pub(crate) fn set_boot_id(&mut self, boot_id: [u8; 16]) {
        self.boot_id = boot_id;
    }

    /// The directory as it is, without owning it: for reading only.
    pub(crate) fn read_only(dir: &Path) -> Result<Self> {
        let path = dir.join(names::STORE);
        if path.is_file() {
            let boot_id = ClockSource::system().boot_id();
            return Ok(DirStorage { dir: dir.to_owned(), boot_id, lock: Mutex::new(None) });
        }
        refuse_foreign(dir)?;
        let mut found = list(dir)?;
        found.retain(|name| names::is_ours(name));
        Err(if found.iter().any(|name| name == names::MANIFEST || names::parse(name).is_some()) {
            Error::corrupt(path, "it is missing, but files of a store are there")
        } else if found.is_empty() {
            Error::NotAStore { dir: dir.to_owned() }
        } else {
            Error::Unfinished { dir: dir.to_owned() }
        })
    }

    /// The process that has the store open, if any.
    pub(crate) fn owner(&self) -> Option<u32> {
        let path = self.dir.join(names::LOCK);
        let file = File::open(&path).ok()?;
        is_owned(&file).then(|| read_pid(&file))
    }
}

impl Drop for DirStorage {
    fn drop(&mut self) {
        unlock(self.lock.get_mut().take());
    }
}

fn unlock(held: Option<(File, Origin)>) {
    let Some((lock, origin)) = held else { return };
    // In a forked child the lock is the parent's as well, and stays when the child closes the file.
    if !origin.is_elsewhere() {
        // Closing alone would not do: a process that is just being started by another thread has
        // the file too, and with it the lock, for a moment.
        let _ = lock.unlock();
    }
}

/// A directory with other things in it and no store is most likely a wrong path.
fn refuse_foreign(dir: &Path) -> Result<()> {
    let mut foreign = false;
    for entry in fs::read_dir(dir).map_err(|e| Error::io("listing", dir, e))? {
        let entry = entry.map_err(|e| Error::io("listing", dir, e))?;
        let name = entry.file_name();
        if name == names::STORE {
            return Ok(());
        }
        foreign |= !name.to_str().is_some_and(names::is_ours) && name != "lost+found";
    }
    if foreign { Err(Error::NotAStore { dir: dir.to_owned() }) } else { Ok(()) }
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("listing", dir, e))? {
        let entry = entry.map_err(|e| Error::io("listing", dir, e))?;
        // A name that is not text is not ours and cannot be mistaken for ours: left alone.
        if let Ok(name) = entry.file_name().into_string()
            && name != names::SET_ASIDE
        {
            files.push(name);
        }
    }
    Ok(files)
}

fn wait_for_lock(lock: &File, path: &Path, wait: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {
                let wait = if is_owned(lock) { wait } else { wait.max(LOOK_LIMIT) };
                if started.elapsed() >= wait {
                    return Err(Error::Locked { pid: read_pid(lock) });
                }
                std::thread::sleep(LOCK_POLL);
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("locking", path, e)),
        }
    }
}

/// Whether an owner has the lock. Owners have it alone, those who ask this share it for an instant.
fn is_owned(lock: &File) -> bool {
    let owned = matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
    if !owned {
        // Closing the file would do, but not at once where a process is just being started.
        let _ = lock.unlock();
    }
    owned
}

fn read_pid(lock: &File) -> u32 {
    let mut text = [0; 16];
    let read = lock.read_at(&mut text, 0).unwrap_or(0);
    std::str::from_utf8(&text[..read]).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// Gives the file its blocks, so that no later store into the map can meet a full disk.
fn allocate(file: &File, len: u64) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        refuse_hopeless(file, len)?;
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len)?;
    }
    #[cfg(not(target_os = "linux"))]
    {
        let zeros = vec![0; 1 << 16];
        let mut at = 0;
        while at < len {
            let part = zeros.len().min((len - at) as usize);
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
    }
    Ok(())
}

/// Smaller files are not worth the question.
#[cfg(target_os = "linux")]
const HOPELESS_FROM: u64 = 64 << 20;

/// Some file systems take all the space that there is before they find out that it is not enough, and
/// everybody else on the disk misses it meanwhile.
#[cfg(target_os = "linux")]
fn refuse_hopeless(file: &File, len: u64) -> std::io::Result<()> {
    if len < HOPELESS_FROM {
        return Ok(());
    }
    let space = rustix::fs::fstatvfs(file)?;
    // A file system that does not count its blocks says zero.
    if space.f_blocks > 0 && len > space.f_bfree.saturating_mul(space.f_frsize) {
        return Err(rustix::io::Errno::NOSPC.into());
    }
    Ok(())
}

impl DirStorage {
    /// A new file with all its blocks; a failed allocation leaves no partial file behind.
    fn create_allocated(&self, name: &str, len: u64) -> Result<(File, PathBuf)> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io("creating", &path, e))?;
        match allocate(&file, len) {
            Ok(()) => Ok((file, path)),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(Error::io("allocating space for", path, error))
            }
        }
    }
}

/// When a file was made, in nanoseconds; zero where the file system does not know.
fn born(meta: &fs::Metadata) -> u64 {
    let since = |t: std::time::SystemTime| t.duration_since(std::time::UNIX_EPOCH).ok();
    meta.created().ok().and_then(since).map_or(0, |d| d.as_nanos() as u64)
}

/// Numbers of inodes are used again, at once; with the time it is another file.
fn stamp_of(meta: &fs::Metadata) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&meta.ino().to_le_bytes());
    bytes[8..].copy_from_slice(&born(meta).to_le_bytes());
    checksum(&bytes).max(1)
}

struct DirFile {
    file: File,
    path: PathBuf,
}

impl FileWriter for DirFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|e| Error::io("writing", &self.path, e))
    }

    fn sync(&mut self) -> Result<()> {
        // The length is allocated and never changes, so the data is all there is to sync.
        self.file.sync_data().map_err(|e| Error::io("syncing", &self.path, e))
    }

    fn map(self: Box<Self>) -> Result<Region> {
        memmap2::MmapOptions::new()
            .map_raw_read_only(&self.file)
            .map(Region::mapped)
            .map_err(|e| Error::io("mapping", self.path, e))
    }
}

impl Storage for DirStorage {
    fn create(&self, name: &str, len: u64) -> Result<Region> {
        let (file, path) = self.create_allocated(name, len)?;
        match memmap2::MmapRaw::map_raw(&file) {
            Ok(map) => Ok(Region::mapped(map)),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(Error::io("mapping", path, error))
            }
        }
    }

    fn create_written(&self, name: &str, len: u64) -> Result<Box<dyn FileWriter>> {
        let (file, path) = self.create_allocated(name, len)?;
        Ok(Box::new(DirFile { file, path }))
    }

    fn open(&self, name: &str, writable: bool) -> Result<Region> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(&path)
            .map_err(|e| Error::io("opening", &path, e))?;
        let empty = file.metadata().map_err(|e| Error::io("reading", &path, e))?.len() == 0;
        if empty {
            return Err(Error::corrupt(path, "it is empty"));
        }
        let map = if writable {
            memmap2::MmapRaw::map_raw(&file)
        } else {
            memmap2::MmapOptions::new().map_raw_read_only(&file)
        };
        map.map(Region::mapped).map_err(|e| Error::io("mapping", path, e))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("reading", path, e)),
        }
    }

    fn replace(&self, name: &str, content: &dyn Fn(u64) -> Vec<u8>) -> Result<()> {
        let temporary = self.path(&names::temporary(name));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&content(stamp_of(&file.metadata()?)))?;
            file.sync_all()
        };
        write().map_err(|e| Error::io("writing", &temporary, e))?;
        let path = self.path(name);
        fs::rename(&temporary, &path).map_err(|e| Error::io("renaming to", path, e))?;
        self.sync_names()
    }

    fn stamp(&self, name: &str) -> Result<u64> {
        let path = self.path(name);
        let meta = fs::metadata(&path).map_err(|e| Error::io("reading", path, e))?;
        Ok(stamp_of(&meta))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing", path, e))
            }
            _ => Ok(()),
        }
    }

    fn set_aside(&self, name: &str) -> Result<()> {
        let aside = self.dir.join(names::SET_ASIDE);
        fs::create_dir_all(&aside).map_err(|e| Error::io("creating the directory", &aside, e))?;
        let mut target = aside.join(name);
        let mut copy = 1;
        while target.exists() {
            target = aside.join(format!("{name}.{copy}"));
            copy += 1;
        }
        let path = self.path(name);
        fs::rename(&path, target).map_err(|e| Error::io("setting aside", path, e))
    }

    fn list(&self) -> Result<Vec<String>> {
        list(&self.dir)
    }

    fn sync(&self, name: &str, region: &Region) -> Result<()> {
        match region.map() {
            Some(map) => map.flush().map_err(|e| Error::io("syncing", self.path(name), e)),
            None => Ok(()),
        }
    }

    fn written_back(&self, name: &str, region: &Region) -> Result<()> {
        // Syncing a single page costs little, and tells of errors with all pages of the file.
        match region.map() {
            Some(map) if map.len() > 0 => map
                .flush_range(map.len() - 1, 1)
                .map_err(|e| Error::io("writing back", self.path(name), e)),
            _ => Ok(()),
        }
    }

    fn sync_names(&self) -> Result<()> {
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| Error::io("syncing the directory", &self.dir, e))
    }

    fn place(&self) -> Result<[u8; 24]> {
        // The header file is written once and never replaced, so its inode and birth time stay.
        let path = self.path(names::STORE);
        let meta = fs::metadata(&path).map_err(|e| Error::io("reading", path, e))?;
        let mut place = [0; 24];
        for (out, value) in place.chunks_exact_mut(8).zip([meta.dev(), meta.ino(), born(&meta)]) {
            out.copy_from_slice(&value.to_le_bytes());
        }
        Ok(place)
    }

    fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    fn release(&self) {
        unlock(self.lock.lock().take());
    }

    fn dirty_room(&self) -> u64 {
        dirty::room(place::kind_of(&self.dir))
    }

    fn is_lasting(&self) -> bool {
        true
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn allocated_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.dir) else { return 0 };
        entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.blocks() * 512).sum()
    }
}
