//! What a crash may find on a simulated disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::{OnDisk, SimDisk, SimFile, State, next};

/// What a power loss may find: files as they are seen and as they are on the disk.
#[derive(Clone)]
pub struct Image {
    /// Operations that were acknowledged before the image was made.
    pub acknowledged: u64,
    pub(super) live: BTreeMap<u64, Vec<u8>>,
    pub(super) on_disk: BTreeMap<u64, Vec<u8>>,
    pub(super) believed: BTreeMap<u64, Vec<u8>>,
    /// Files with pages that could not be written back, which nobody was told.
    pub(super) failed: BTreeSet<u64>,
    pub(super) synced: BTreeMap<String, u64>,
    pub(super) changes: Vec<Unsynced>,
    pub(super) next_inode: u64,
    pub(super) boot: [u8; 16],
    pub(super) dirty_room: Option<u64>,
}

/// A change of the directory that was not synced: a name that goes, and one that is set to an inode.
pub(super) type Unsynced = (Option<String>, Option<(String, u64)>);

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

impl Image {
    pub(super) fn add(&mut self, file: &Arc<SimFile>) {
        self.live.entry(file.inode).or_insert_with(|| file.content());
        let on_disk = file.on_disk.lock();
        self.on_disk.entry(file.inode).or_insert_with(|| on_disk.bytes.clone());
        self.believed.entry(file.inode).or_insert_with(|| on_disk.believed.clone());
        if file.failed.load(Acquire) {
            self.failed.insert(file.inode);
        }
    }

    fn empty_disk(&self) -> State {
        let (next_inode, dirty_room) = (self.next_inode, self.dirty_room);
        State { next_inode, dirty_room, ..State::default() }
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
        let mut state = self.empty_disk();
        for (name, inode) in &directory {
            let live = &self.live[inode];
            let Some(file) = SimFile::with(*inode, live) else { continue };
            let (bytes, believed) = (self.on_disk[inode].clone(), self.believed[inode].clone());
            *file.on_disk.lock() = OnDisk { bytes, believed };
            file.failed.store(self.failed.contains(inode), Release);
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
        let mut state = self.empty_disk();
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
