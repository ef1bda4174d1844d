//! A disk that loses power: storage for tests, which keeps beside the content of each file what of
//! it is on the disk, and makes images of what a power loss may leave.

mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

pub use image::{Image, Mix};
use parking_lot::Mutex;

use super::{FileWriter, Region, Storage};
use crate::error::{Error, Result};
use crate::format::{PAGE, names};

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    disk: Arc<Disk>,
}

struct Disk {
    state: Mutex<State>,
    /// Operations that the workload was told are done.
    acknowledged: AtomicU64,
    boot: [u8; 16],
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<SimFile>>,
    /// The directory as it is on the disk.
    synced: BTreeMap<String, Arc<SimFile>>,
    /// What was done to the directory since.
    changes: Vec<Change>,
    /// Calls so far.
    calls: u64,
    fault: Option<Fault>,
    snapshot_at: Option<u64>,
    watch: Option<Watch>,
    image: Option<Image>,
    capacity: Option<u64>,
    filesystem: u32,
    dirty_room: Option<u64>,
    next_inode: u64,
    random: u64,
}

#[derive(Clone)]
enum Change {
    Set(String, Arc<SimFile>),
    Rename(String, String, Arc<SimFile>),
    Remove(String),
}

/// A file: what processes see, what is on the disk, and what the kernel believes is.
struct SimFile {
    inode: u64,
    live: Region,
    on_disk: Mutex<OnDisk>,
    /// Some pages could not be written back, and nobody was told.
    failed: AtomicBool,
}

#[derive(Default)]
struct OnDisk {
    bytes: Vec<u8>,
    /// After a failed sync the kernel takes for clean what it could not write.
    believed: Vec<u8>,
}

/// Told of each call, what it does and to which file, by the thread that makes it; says how it fails.
pub type Watch = Arc<dyn Fn(&str, &str) -> Option<std::io::ErrorKind> + Send + Sync>;

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The number of the call, counted from when the disk was made.
    pub at: u64,
    /// All calls from there on.
    pub for_ever: bool,
    /// With what.
    pub kind: std::io::ErrorKind,
}

fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl SimFile {
    fn new(inode: u64, len: u64) -> Option<Self> {
        let live = Region::heap(usize::try_from(len).ok()?)?;
        Some(SimFile { inode, live, on_disk: Mutex::default(), failed: AtomicBool::new(false) })
    }

    fn with(inode: u64, bytes: &[u8]) -> Option<Self> {
        let file = SimFile::new(inode, bytes.len() as u64)?;
        file.live.write_bytes(0, bytes);
        Some(file)
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.live.len()];
        self.live.read_bytes(0, &mut bytes);
        bytes
    }

    /// Drops clean pages: they are read again as they are on the disk.
    fn drop_clean(&self) {
        let (live, on_disk) = (self.content(), self.on_disk.lock());
        let pages =
            live.chunks(PAGE).zip(on_disk.bytes.chunks(PAGE)).zip(on_disk.believed.chunks(PAGE));
        for (number, ((live, bytes), believed)) in pages.enumerate() {
            if live == believed && live != bytes {
                self.live.write_bytes(number * PAGE, bytes);
            }
        }
    }

    /// Writes dirty pages. A sync that fails leaves some unwritten, and takes them for clean.
    fn sync(&self, fails: Option<&mut u64>) {
        let live = self.content();
        let mut on_disk = self.on_disk.lock();
        let OnDisk { bytes, believed } = &mut *on_disk;
        bytes.resize(live.len(), 0);
        believed.resize(live.len(), 0);
        let mut random = fails;
        let pages = live.chunks(PAGE).zip(bytes.chunks_mut(PAGE)).zip(believed.chunks_mut(PAGE));
        for ((live, bytes), believed) in pages {
            if live == believed {
                continue;
            }
            believed.copy_from_slice(live);
            if random.as_deref_mut().is_none_or(|random| next(random) & 1 == 0) {
                bytes.copy_from_slice(live);
            }
        }
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        SimDisk::with(State { next_inode: 1, ..State::default() })
    }

    fn with(state: State) -> Self {
        let mut boot = [0; 16];
        crate::random::fill_or_counter(&mut boot);
        SimDisk::on_boot(state, boot)
    }

    fn on_boot(state: State, boot: [u8; 16]) -> Self {
        let disk = Disk { state: Mutex::new(state), acknowledged: AtomicU64::new(0), boot };
        SimDisk { disk: Arc::new(disk) }
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// The workload was told that its first `operations` are done.
    pub fn acknowledge(&self, operations: u64) {
        self.disk.acknowledged.store(operations, Release);
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.disk.state.lock().calls
    }

    /// Makes calls fail; `None` ends that.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.disk.state.lock().fault = fault;
    }

    /// Has each call told before it is made; `None` ends that.
    pub fn set_watch(&self, watch: Option<Watch>) {
        self.disk.state.lock().watch = watch;
    }

    /// Makes an image just before call number `call`.
    pub fn snapshot_at(&self, call: u64) {
        self.disk.state.lock().snapshot_at = Some(call);
    }

    /// The image that was asked for, if its call came.
    #[must_use]
    pub fn take_image(&self) -> Option<Image> {
        self.disk.state.lock().image.take()
    }

    /// An image of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Image {
        self.image(&self.disk.state.lock())
    }

    /// The names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.disk.state.lock().files.keys().cloned().collect()
    }

    /// No more than so many bytes fit; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.state.lock().capacity = bytes;
    }

    /// So many bytes may be changed all the time without writers being held up; `None` for no limit.
    pub fn set_dirty_room(&self, bytes: Option<u64>) {
        self.disk.state.lock().dirty_room = bytes;
    }

    /// The number by which `statfs` names the kind of file system; 0 for one that nobody knows.
    pub fn set_filesystem(&self, number: u32) {
        self.disk.state.lock().filesystem = number;
    }

    pub(crate) fn filesystem(&self) -> u32 {
        self.disk.state.lock().filesystem
    }

    /// The kernel writes dirty pages back by itself, and cannot write some of them. It takes them for
    /// clean all the same, and tells who asks next. `seed` decides which.
    pub fn fail_write_back(&self, seed: u64) {
        let mut state = self.disk.state.lock();
        state.random = seed;
        let files: Vec<_> = state.files.values().cloned().collect();
        for file in files {
            let dirty = file.content() != file.on_disk.lock().believed;
            file.sync(Some(&mut state.random));
            file.failed.fetch_or(dirty, AcqRel);
        }
    }

    /// The kernel drops what it knows of files that nobody has open: errors that nobody was told of.
    pub fn drop_inodes(&self) {
        self.disk.state.lock().files.values().for_each(|file| file.failed.store(false, Release));
    }

    /// The kernel drops clean pages, as it does when memory is short.
    pub fn drop_caches(&self) {
        self.disk.state.lock().files.values().for_each(|file| file.drop_clean());
    }

    fn image(&self, state: &State) -> Image {
        let acknowledged = self.disk.acknowledged.load(Acquire);
        let mut image = Image {
            acknowledged,
            live: BTreeMap::new(),
            on_disk: BTreeMap::new(),
            believed: BTreeMap::new(),
            failed: BTreeSet::new(),
            synced: BTreeMap::new(),
            changes: Vec::new(),
            next_inode: state.next_inode,
            boot: self.disk.boot,
            dirty_room: state.dirty_room,
        };
        for (name, file) in &state.synced {
            image.add(file);
            image.synced.insert(name.clone(), file.inode);
        }
        for change in &state.changes {
            let (gone, set) = match change {
                Change::Set(name, file) => (None, Some((name.clone(), file))),
                Change::Rename(from, to, file) => (Some(from.clone()), Some((to.clone(), file))),
                Change::Remove(name) => (Some(name.clone()), None),
            };
            let set = set.map(|(name, file)| {
                image.add(file);
                (name, file.inode)
            });
            image.changes.push((gone, set));
        }
        image
    }

    /// Counts a call, and says whether it fails.
    fn call(&self, action: &'static str, name: &str) -> Result<()> {
        let watch = self.disk.state.lock().watch.clone();
        if let Some(kind) = watch.and_then(|watch| watch(action, name)) {
            return Err(Error::io(action, self.path(name), kind));
        }
        let mut state = self.disk.state.lock();
        state.calls += 1;
        if state.snapshot_at == Some(state.calls) {
            state.image = Some(self.image(&state));
        }
        match state.fault {
            Some(fault) if state.calls == fault.at || fault.for_ever && state.calls > fault.at => {
                Err(Error::io(action, self.path(name), fault.kind))
            }
            _ => Ok(()),
        }
    }

    fn sync_file(&self, file: &SimFile) -> Result<()> {
        let called = self.call("syncing", "a file");
        match &called {
            Ok(()) => file.sync(None),
            Err(_) => file.sync(Some(&mut self.disk.state.lock().random)),
        }
        called?;
        self.report(file)
    }

    /// What could not be written back before is told once.
    fn report(&self, file: &SimFile) -> Result<()> {
        match file.failed.swap(false, AcqRel) {
            false => Ok(()),
            true => Err(Error::io("syncing", self.path("a file"), std::io::ErrorKind::Other)),
        }
    }

    fn file_of(&self, region: &Region) -> Option<Arc<SimFile>> {
        let files = self.disk.state.lock().files.clone();
        // Its name may be gone, its pages are not.
        files.into_values().find(|file| file.live.shares_with(region))
    }

    fn add(&self, name: &str, len: u64) -> Result<Arc<SimFile>> {
        self.call("creating", name)?;
        let full = || Error::io("allocating", self.path(name), std::io::ErrorKind::StorageFull);
        let mut state = self.disk.state.lock();
        let used: u64 = state.files.values().map(|file| file.live.len() as u64).sum();
        if state.capacity.is_some_and(|capacity| used + len > capacity) {
            return Err(full());
        }
        let file = Arc::new(SimFile::new(state.next_inode, len).ok_or_else(full)?);
        state.next_inode += 1;
        state.files.insert(name.to_owned(), Arc::clone(&file));
        state.changes.push(Change::Set(name.to_owned(), Arc::clone(&file)));
        Ok(file)
    }

    fn file(&self, name: &str) -> Option<Arc<SimFile>> {
        self.disk.state.lock().files.get(name).cloned()
    }
}

struct SimWriter {
    disk: SimDisk,
    file: Arc<SimFile>,
}

impl FileWriter for SimWriter {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.disk.call("writing", "a file")?;
        self.file.live.write_bytes(offset as usize, bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.disk.sync_file(&self.file)
    }

    fn map(self: Box<Self>) -> Result<Region> {
        self.disk.call("mapping", "a file")?;
        Ok(self.file.live.clone())
    }
}

impl Storage for SimDisk {
    fn create(&self, name: &str, len: u64) -> Result<Region> {
        self.add(name, len).map(|file| file.live.clone())
    }

    fn create_written(&self, name: &str, len: u64) -> Result<Box<dyn FileWriter>> {
        let file = self.add(name, len)?;
        Ok(Box::new(SimWriter { disk: self.clone(), file }))
    }

    fn open(&self, name: &str, _writable: bool) -> Result<Region> {
        self.call("opening", name)?;
        match self.file(name) {
            Some(file) if file.live.len() > 0 => Ok(file.live.clone()),
            Some(_) => Err(Error::corrupt(self.path(name), "it is empty")),
            None => Err(Error::io("opening", self.path(name), std::io::ErrorKind::NotFound)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.call("reading", name)?;
        Ok(self.file(name).map(|file| file.content()))
    }

    fn replace(&self, name: &str, content: &dyn Fn(u64) -> Vec<u8>) -> Result<()> {
        let temporary = names::temporary(name);
        let file = self.add(&temporary, content(0).len() as u64)?;
        file.live.write_bytes(0, &content(file.inode));
        self.sync_file(&file)?;
        self.call("renaming to", name)?;
        {
            let mut state = self.disk.state.lock();
            state.files.remove(&temporary);
            state.files.insert(name.to_owned(), Arc::clone(&file));
            state.changes.push(Change::Rename(temporary, name.to_owned(), file));
        }
        self.sync_names()
    }

    fn stamp(&self, name: &str) -> Result<u64> {
        Ok(self.file(name).map_or(0, |file| file.inode))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.call("removing", name)?;
        let mut state = self.disk.state.lock();
        if state.files.remove(name).is_some() {
            state.changes.push(Change::Remove(name.to_owned()));
        }
        Ok(())
    }

    fn set_aside(&self, name: &str) -> Result<()> {
        self.remove(name)
    }

    fn list(&self) -> Result<Vec<String>> {
        self.call("listing", "")?;
        Ok(self.disk.state.lock().files.keys().cloned().collect())
    }

    fn sync(&self, name: &str, region: &Region) -> Result<()> {
        match self.file_of(region) {
            Some(file) => self.sync_file(&file),
            None => self.call("syncing", name),
        }
    }

    fn written_back(&self, name: &str, region: &Region) -> Result<()> {
        self.call("writing back", name)?;
        self.file_of(region).map_or(Ok(()), |file| self.report(&file))
    }

    fn sync_names(&self) -> Result<()> {
        self.call("syncing the directory", "")?;
        let mut state = self.disk.state.lock();
        state.synced = state.files.clone();
        state.changes.clear();
        Ok(())
    }

    fn place(&self) -> Result<[u8; 24]> {
        let inode = self.file(names::STORE).map_or(0, |file| file.inode);
        let mut place = [0; 24];
        place[8..16].copy_from_slice(&inode.to_le_bytes());
        Ok(place)
    }

    fn boot_id(&self) -> [u8; 16] {
        self.disk.boot
    }

    fn release(&self) {}

    fn dirty_room(&self) -> u64 {
        self.disk.state.lock().dirty_room.unwrap_or(u64::MAX)
    }

    fn is_lasting(&self) -> bool {
        true
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("(simulated)/{name}"))
    }

    fn allocated_bytes(&self) -> u64 {
        let state = self.disk.state.lock();
        state.files.values().map(|file| file.live.len() as u64).sum()
    }
}
