//! A disk that loses power: storage for tests, which keeps beside the content of each file what of
//! it is on the disk, and makes images of what a power loss may leave.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

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
    image: Option<Image>,
    capacity: Option<u64>,
    filesystem: u32,
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
}

#[derive(Default)]
struct OnDisk {
    bytes: Vec<u8>,
    /// After a failed sync the kernel takes for clean what it could not write.
    believed: Vec<u8>,
}

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

/// What a power loss may find: files as they are seen and as they are on the disk.
#[derive(Clone)]
pub struct Image {
    /// Operations that were acknowledged before the image was made.
    pub acknowledged: u64,
    live: BTreeMap<u64, Vec<u8>>,
    on_disk: BTreeMap<u64, Vec<u8>>,
    synced: BTreeMap<String, u64>,
    changes: Vec<Unsynced>,
    next_inode: u64,
    boot: [u8; 16],
}

/// A change of the directory that was not synced: a name that goes, and one that is set to an inode.
type Unsynced = (Option<String>, Option<(String, u64)>);

/// What survives of what was not synced.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Decides which parts.
    pub seed: u64,
    /// Bytes of a part: 1, 512, 4096.
    pub unit: usize,
    /// How many of 256 parts survive.
    pub survive: u8,
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
        Some(SimFile { inode, live, on_disk: Mutex::default() })
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

    /// No more than so many bytes fit; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.state.lock().capacity = bytes;
    }

    /// The number by which `statfs` names the kind of file system; 0 for one that nobody knows.
    pub fn set_filesystem(&self, number: u32) {
        self.disk.state.lock().filesystem = number;
    }

    pub(crate) fn filesystem(&self) -> u32 {
        self.disk.state.lock().filesystem
    }

    fn image(&self, state: &State) -> Image {
        let acknowledged = self.disk.acknowledged.load(Acquire);
        let mut image = Image {
            acknowledged,
            live: BTreeMap::new(),
            on_disk: BTreeMap::new(),
            synced: BTreeMap::new(),
            changes: Vec::new(),
            next_inode: state.next_inode,
            boot: self.disk.boot,
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
        called
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

impl Image {
    fn add(&mut self, file: &Arc<SimFile>) {
        self.live.entry(file.inode).or_insert_with(|| file.content());
        self.on_disk.entry(file.inode).or_insert_with(|| file.on_disk.lock().bytes.clone());
    }

    /// The disk as the kernel has it when only the process died.
    #[must_use]
    pub fn after_kill(&self) -> SimDisk {
        let mut directory = self.synced.clone();
        for (gone, set) in &self.changes {
            if let Some(name) = gone {
                directory.remove(name);
            }
            directory.extend(set.clone());
        }
        let mut state = State { next_inode: self.next_inode, ..State::default() };
        for (name, inode) in &directory {
            let live = &self.live[inode];
            let Some(file) = SimFile::with(*inode, live) else { continue };
            let on_disk = self.on_disk[inode].clone();
            *file.on_disk.lock() = OnDisk { believed: on_disk.clone(), bytes: on_disk };
            state.files.insert(name.clone(), Arc::new(file));
        }
        // What else the disk may hold matters only if the power fails before the next sync.
        state.synced.clone_from(&state.files);
        SimDisk::on_boot(state, self.boot)
    }

    /// A disk as one power loss may leave it.
    #[must_use]
    pub fn after_power_loss(&self, mix: Mix) -> SimDisk {
        let mut random = mix.seed;
        let survives = |random: &mut u64| (next(random) as u8 as u16) < u16::from(mix.survive);
        let mut directory = self.synced.clone();
        for (gone, set) in &self.changes {
            if survives(&mut random) {
                if let Some(name) = gone {
                    directory.remove(name);
                }
                directory.extend(set.clone());
            }
        }
        let mut state = State { next_inode: self.next_inode, ..State::default() };
        for (name, inode) in directory {
            let bytes = self.mixed(inode, mix, &mut random);
            let Some(file) = SimFile::with(inode, &bytes) else { continue };
            *file.on_disk.lock() = OnDisk { believed: bytes.clone(), bytes };
            state.files.insert(name, Arc::new(file));
        }
        state.synced.clone_from(&state.files);
        state.random = random;
        SimDisk::with(state)
    }

    /// The content of a file: parts as on the disk and parts as last seen. A file that was never
    /// synced may have any length.
    fn mixed(&self, inode: u64, mix: Mix, random: &mut u64) -> Vec<u8> {
        let (live, on_disk) = (&self.live[&inode], &self.on_disk[&inode]);
        let mut bytes = on_disk.clone();
        if bytes.len() != live.len() {
            let len = match next(random) % 4 {
                0 => 0,
                1 => (next(random) % (live.len() as u64 + 1)) as usize,
                _ => live.len(),
            };
            bytes.resize(len.max(on_disk.len()), 0);
        }
        for (bytes, live) in bytes.chunks_mut(mix.unit).zip(live.chunks(mix.unit)) {
            let len = bytes.len();
            if *bytes != live[..len] && (next(random) as u8 as u16) < u16::from(mix.survive) {
                bytes.copy_from_slice(&live[..len]);
            }
        }
        bytes
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

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = names::temporary(name);
        let file = self.add(&temporary, bytes.len() as u64)?;
        file.live.write_bytes(0, bytes);
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
        let files = self.disk.state.lock().files.clone();
        // Its name may be gone, its pages are not.
        let same = |file: &&Arc<SimFile>| file.live.address() == region.address();
        match files.values().find(same) {
            Some(file) => self.sync_file(file),
            None => self.call("syncing", name),
        }
    }

    fn sync_names(&self) -> Result<()> {
        self.call("syncing the directory", "")?;
        let mut state = self.disk.state.lock();
        state.synced = state.files.clone();
        state.changes.clear();
        Ok(())
    }

    fn place(&self) -> Result<[u8; 32]> {
        let inode = self.file(names::STORE).map_or(0, |file| file.inode);
        let mut place = [0; 32];
        place[8..16].copy_from_slice(&inode.to_le_bytes());
        Ok(place)
    }

    fn boot_id(&self) -> [u8; 16] {
        self.disk.boot
    }

    fn release(&self) {}

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
