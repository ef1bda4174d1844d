//! Power loss on a real file system: a store on a loop-mounted ext4, the power cut by the shutdown
//! ioctl without a flush of the journal, the child killed, the file system mounted again, the store
//! opened on what counts as a new boot. Needs root and Linux.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use memmap2::MmapRaw;
use onceonly::{Builder, Claim, Dedup, Timestamp, Verdict};

use crate::args::Args;
use crate::common::Rng;
use crate::common::ops::Level;

/// After so many power losses a new file system is begun.
const CYCLES_PER_STORE: u64 = 20;
const IMAGE_BYTES: u64 = 64 << 20;
const OPERATIONS: u64 = 100_000;

pub(crate) fn run(args: &Args) -> Result<()> {
    let (cycles, seed) = (args.number("cycles", 20)?, args.number("seed", 1)?);
    let work = tempfile::Builder::new().prefix("onceonly-power").tempdir_in("/dev/shm")?;
    let mut rng = Rng::new(seed);
    let (mut lost, mut acknowledged) = ([0; 3], 0);
    let started = Instant::now();
    for first in (0..cycles).step_by(CYCLES_PER_STORE as usize) {
        let level = Level::ALL[(first / CYCLES_PER_STORE) as usize % 3];
        let mut store = Campaign::begin(work.path(), level, seed)?;
        for cycle in first..cycles.min(first + CYCLES_PER_STORE) {
            let told = store.cycle(cycle, &mut rng).with_context(|| {
                format!("{level:?}, cycle {cycle}, seed {seed}: see {}", work.path().display())
            })?;
            lost[level as usize] += told.lost;
            acknowledged += told.acknowledged;
        }
        store.end()?;
    }
    println!(
        "power: {cycles} cycles, seed {seed}, {acknowledged} keys acknowledged, 0 false duplicates, \
         0 lost without a word; lost as the level allows: Process {}, Interval {}, Sync {}; {:.0} s",
        lost[0],
        lost[1],
        lost[2],
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

struct Told {
    acknowledged: u64,
    lost: u64,
}

/// What a key must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Acknowledged at about this time; true once it was found after a power loss.
    Marked(Timestamp, bool),
    Unmarked,
}

struct Campaign {
    level: Level,
    seed: u64,
    image: PathBuf,
    mount: PathBuf,
    board: PathBuf,
    keys: BTreeMap<String, Fate>,
}

fn command(name: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let output = Command::new(name).args(arguments).output().with_context(|| name.to_owned())?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(crate) fn mount_image(image: &Path, mount: &Path) -> Result<()> {
    command("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), mount.as_ref()])
}

pub(crate) fn unmount(mount: &Path) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..200 {
        last = command("umount", &[mount.as_ref()]);
        if last.is_ok() {
            return last;
        }
        thread::sleep(Duration::from_millis(10));
    }
    last
}

pub(crate) fn make_image(image: &Path, bytes: u64) -> Result<()> {
    File::create(image)?.set_len(bytes)?;
    command("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()])
}

/// Cuts the power: nothing that is not on the disk will get there.
pub(crate) fn shut_down(mount: &Path) -> Result<()> {
    const FS_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587D;
    const NO_LOG_FLUSH: u32 = 2;
    let directory = File::open(mount)?;
    // SAFETY: the request takes a pointer to a `u32` and reads it, which `Setter` passes.
    unsafe {
        let request = rustix::ioctl::Setter::<FS_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH);
        rustix::ioctl::ioctl(directory, request)?;
    }
    Ok(())
}

impl Campaign {
    fn begin(work: &Path, level: Level, seed: u64) -> Result<Self> {
        let (image, mount) = (work.join("image"), work.join("mount"));
        fs::create_dir_all(&mount)?;
        make_image(&image, IMAGE_BYTES)?;
        mount_image(&image, &mount)?;
        let board = work.join("board");
        Ok(Campaign { level, seed, image, mount, board, keys: BTreeMap::new() })
    }

    fn end(self) -> Result<()> {
        unmount(&self.mount)
    }

    fn cycle(&mut self, cycle: u64, rng: &mut Rng) -> Result<Told> {
        File::create(&self.board)?.set_len(4096)?;
        let began = Timestamp::from(SystemTime::now());
        let mut child = Command::new(std::env::current_exe()?)
            .arg("power-child")
            .args(["--store".as_ref(), self.mount.join("store").as_os_str()])
            .args(["--board".as_ref(), self.board.as_os_str()])
            .args(["--level", &(self.level as u64).to_string()])
            .args(["--seed", &self.seed.to_string(), "--cycle", &cycle.to_string()])
            // When the power has failed its calls fail too, and it says so.
            .stderr(Stdio::null())
            .spawn()?;
        let board = Board::open(&self.board)?;
        while rng.below(8) != 0 && board.opened() == 0 {
            ensure!(child.try_wait()?.is_none(), "the child ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(rng.below(60_000)));
        let before = board.acknowledged();
        shut_down(&self.mount)?;
        child.kill()?;
        child.wait()?;
        // What was acknowledged after the power had failed was on the disk before, or the call
        // could not have returned.
        let acknowledged = if self.level == Level::Sync { board.acknowledged() } else { before };
        unmount(&self.mount)?;
        mount_image(&self.image, &self.mount)?;
        self.note(cycle, acknowledged, board.acknowledged(), began);
        self.verify(cycle)
    }

    /// Plays the child's part again as far as it was acknowledged.
    fn note(&mut self, cycle: u64, acknowledged: u64, begun: u64, began: Timestamp) {
        for operation in 0..acknowledged {
            match plan(self.seed, cycle, operation) {
                Plan::Mark(keys) | Plan::Work(keys) => {
                    self.keys.extend(keys.into_iter().map(|key| (key, Fate::Marked(began, false))));
                }
                Plan::Forget(key) | Plan::Claim(key) => {
                    self.keys.insert(key, Fate::Unmarked);
                }
            }
        }
        // These were under way: either answer is right.
        for operation in acknowledged..=begun {
            match plan(self.seed, cycle, operation) {
                Plan::Mark(keys) | Plan::Work(keys) => {
                    for key in &keys {
                        self.keys.remove(key);
                    }
                }
                Plan::Forget(key) | Plan::Claim(key) => {
                    self.keys.remove(&key);
                }
            }
        }
    }

    fn verify(&mut self, cycle: u64) -> Result<Told> {
        let store = open(self.level, &self.mount.join("store"), 2 * cycle + 1)?;
        let since = store.guaranteed_since();
        let mut told = Told { acknowledged: 0, lost: 0 };
        for (key, fate) in &mut self.keys {
            let live = store.contains(key)?;
            match fate {
                Fate::Unmarked => ensure!(!live, "{key} is a false duplicate"),
                Fate::Marked(at, found) => {
                    told.acknowledged += u64::from(!*found);
                    let must = *found || self.level == Level::Sync;
                    let report = || format!("{:?}", store.stats().recovery);
                    ensure!(live || !must, "{key} is lost: {}", report());
                    ensure!(live || since > *at, "{key} is lost without a word: {}", report());
                    *found = live;
                    told.lost += u64::from(!live);
                }
            }
        }
        self.keys.retain(|_, fate| !matches!(fate, Fate::Marked(_, false)));
        for n in 0..20 {
            ensure!(!store.contains(format!("fresh-{cycle}-{n}"))?, "a fresh key is a duplicate");
        }
        store.close()?;
        Ok(told)
    }
}

fn open(level: Level, directory: &Path, boot: u64) -> Result<Dedup> {
    open_on(builder(level), directory, boot)
}

/// Opens a store as if on the boot of that number.
pub(crate) fn open_on(builder: Builder, directory: &Path, boot: u64) -> Result<Dedup> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&boot.to_le_bytes());
    Ok(builder.open_on_boot(directory, id)?)
}

fn builder(level: Level) -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(3600))
        .slices(7)
        .expected_keys(1_000)
        .shards(2)
        .durability(level.durability())
}

/// One operation of the child, as a function of seed, cycle and number.
enum Plan {
    Mark(Vec<String>),
    /// Claimed and committed.
    Work(Vec<String>),
    Forget(String),
    Claim(String),
}

fn plan(seed: u64, cycle: u64, operation: u64) -> Plan {
    let mut rng = Rng::new(seed ^ (cycle << 40) ^ operation);
    let key = |operation: u64, n: u64| format!("{cycle}.{operation}.{n}");
    let keys = |count: u64| (0..count).map(|n| key(operation, n)).collect();
    match rng.below(10) {
        0..4 => Plan::Mark(keys(1 + rng.below(200))),
        4..7 => Plan::Mark(keys(1)),
        7 => Plan::Work(keys(1 + rng.below(20))),
        8 if operation > 0 => match plan(seed, cycle, operation - 1) {
            Plan::Mark(keys) => Plan::Forget(keys[0].clone()),
            _ => Plan::Mark(keys(1)),
        },
        8 => Plan::Mark(keys(1)),
        _ => Plan::Claim(key(operation, 0)),
    }
}

/// A page on which the child says how far it has come; it lies outside the file system.
struct Board(MmapRaw);

impl Board {
    fn open(path: &Path) -> Result<Self> {
        Ok(Board(MmapRaw::map_raw(&File::options().read(true).write(true).open(path)?)?))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < 512);
        // SAFETY: the map is a page, aligned, writable, lives as long as `self`, and both processes
        // use atomics only.
        unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast::<u64>().add(at)) }
    }

    fn opened(&self) -> u64 {
        self.word(0).load(SeqCst)
    }

    fn acknowledged(&self) -> u64 {
        self.word(1).load(SeqCst)
    }
}

/// Works until the power fails; then its calls fail, or it is killed.
pub(crate) fn child(args: &Args) -> Result<()> {
    let level = Level::ALL[args.number::<usize>("level", 0)?];
    let (seed, cycle) = (args.number("seed", 1)?, args.number("cycle", 0)?);
    let board = Board::open(args.text("board")?.as_ref())?;
    let store = open(level, args.text("store")?.as_ref(), 2 * cycle)?;
    board.word(0).store(1, SeqCst);
    let mut guards = Vec::new();
    for operation in 0..OPERATIONS {
        let done = match plan(seed, cycle, operation) {
            Plan::Mark(keys) => store.observe_batch(&keys).is_ok_and(|verdicts| {
                assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New), "{keys:?}");
                true
            }),
            Plan::Work(keys) => {
                let claims = store.claim_batch(&keys).unwrap_or_default();
                let granted: Vec<_> = claims
                    .into_iter()
                    .filter_map(|claim| match claim {
                        Claim::Granted(guard) => Some(guard),
                        _ => None,
                    })
                    .collect();
                let all = granted.len() == keys.len();
                store.commit_batch(granted).iter().all(Result::is_ok) && all
            }
            Plan::Forget(key) => store.forget(&key).is_ok(),
            Plan::Claim(key) => {
                guards.push(store.claim(&key));
                true
            }
        };
        if !done {
            // The disk is gone; what follows is not acknowledged.
            break;
        }
        board.word(1).store(operation + 1, SeqCst);
    }
    loop {
        thread::sleep(Duration::from_millis(1));
    }
}
