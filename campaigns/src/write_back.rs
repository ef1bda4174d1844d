//! A disk that takes space and then does not take what is written there: an ext4 image on a tmpfs
//! with less room than the image promises. Allocating succeeds, the first sync fails, and the second
//! succeeds although pages are lost. Needs root and Linux.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use onceonly::{Builder, Dedup, Timestamp, Verdict};

use crate::args::Args;
use crate::common::ops::Level;
use crate::power::{mount_image, open_on, shut_down, unmount};

/// Keys of a batch.
const BATCH: u64 = 500;
/// Batches that are marked while the disk takes everything, and while it does not.
const BEFORE: u64 = 40;
const AFTER: u64 = 400;
/// What the image promises, and what of it there is.
const PROMISED: u64 = 192 << 20;
const THERE: u64 = 96 << 20;
/// What the file system needs for itself.
const OWN: u64 = 16 << 20;
/// Left when the ballast is there.
const LEFT: u64 = 1 << 20;

struct Disk {
    under: PathBuf,
    mount: PathBuf,
    /// It is the parent's, who takes it down.
    is_borrowed: bool,
}

impl Disk {
    fn new(work: &Path) -> Result<Self> {
        let (under, mount) = (work.join("under"), work.join("mount"));
        fs::create_dir_all(&under)?;
        fs::create_dir_all(&mount)?;
        let size = format!("size={THERE}");
        shell(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&under))?;
        let image = under.join("image");
        fs::File::create(&image)?.set_len(PROMISED)?;
        // Its own structures lie together and have their space, so that only data can fail.
        let eager = "lazy_itable_init=0,lazy_journal_init=0,packed_meta_blocks=1,nodiscard";
        let small = ["-q", "-F", "-N", "256", "-J", "size=4", "-E", eager];
        shell(Command::new("mkfs.ext4").args(small).arg(&image))?;
        let length = OWN.to_string();
        shell(Command::new("fallocate").args(["--length", &length]).arg(&image))?;
        mount_image(&image, &mount)?;
        Ok(Disk { under, mount, is_borrowed: false })
    }

    fn store(&self) -> PathBuf {
        self.mount.join("store")
    }

    /// From here on little of what is written finds room.
    fn fill(&self) -> Result<()> {
        shell(Command::new("sync").arg("-f").arg(&self.mount))?;
        let statistics = rustix::fs::statvfs(&self.under)?;
        let free = statistics.f_bavail * statistics.f_frsize;
        fs::write(self.under.join("ballast"), vec![1; free.saturating_sub(LEFT) as usize])?;
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.under.join("ballast"))?)
    }

    /// The kernel writes back what is dirty, and drops what is clean.
    fn write_back(&self) {
        // It fails, and that is what it is for.
        let _ = Command::new("sync").arg("-f").arg(&self.mount).output();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.is_borrowed {
            // Whatever failed before is what matters.
            let _ = unmount(&self.mount).and_then(|()| unmount(&self.under));
        }
    }
}

fn drop_caches() -> Result<()> {
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}

fn shell(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn builder(level: Level) -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(3600))
        .expected_keys(20_000)
        .shards(2)
        .durability(level.durability())
}

fn batch(number: u64) -> Vec<String> {
    (0..BATCH).map(|n| format!("{number}-{n}")).collect()
}

fn is_forgotten(number: u64) -> bool {
    number < BEFORE && number % 4 == 1
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let rounds = args.number::<u64>("rounds", 1)?;
    for round in 0..rounds {
        for level in Level::ALL {
            for looks in [false, true] {
                let work = tempfile::Builder::new().prefix("onceonly-wb").tempdir_in("/dev/shm")?;
                let what = || format!("round {round}, {level:?}, looks: {looks}");
                let healed = heals(level, looks, work.path()).with_context(what)?;
                println!("write-back: {level:?}, looks: {looks}: {healed}");
            }
            let work = tempfile::Builder::new().prefix("onceonly-wb").tempdir_in("/dev/shm")?;
            let lost = killed(level, work.path()).with_context(|| format!("{level:?}, killed"))?;
            println!("write-back: {level:?}, killed: {lost} keys lost and told");
        }
    }
    Ok(())
}

/// Marks batches, some of which are forgotten again; how many were marked.
fn mark(store: &Dedup, batches: std::ops::Range<u64>) -> Result<Vec<u64>> {
    let mut marked = Vec::new();
    for number in batches {
        let Ok(verdicts) = store.observe_batch(&batch(number)) else { continue };
        ensure!(verdicts.iter().all(|verdict| *verdict == Verdict::New), "a false duplicate");
        if is_forgotten(number) {
            store.forget(&batch(number)[0])?;
        }
        marked.push(number);
    }
    Ok(marked)
}

/// Keys of `marked` that are not live; nothing else is.
fn missing(store: &Dedup, marked: &[u64]) -> Result<u64> {
    let mut missing = 0;
    for number in 0..BEFORE + AFTER {
        let live = store.contains_batch(&batch(number))?;
        if !marked.contains(&number) {
            ensure!(!live.contains(&true), "batch {number} got an error, and is marked");
            continue;
        }
        let from = usize::from(is_forgotten(number));
        ensure!(from == 0 || !live[0], "the first of batch {number} was forgotten, and is live");
        missing += live[from..].iter().filter(|live| !**live).count() as u64;
    }
    Ok(missing)
}

/// The disk does not take what is written, then it does: the store goes on from memory, and what it
/// synced then survives a power loss.
fn heals(level: Level, looks: bool, work: &Path) -> Result<String> {
    let disk = Disk::new(work)?;
    let store = builder(level).open(disk.store())?;
    let mut marked = mark(&store, 0..BEFORE)?;
    store.sync()?;
    disk.fill()?;
    marked.extend(mark(&store, BEFORE..BEFORE + AFTER)?);
    let meanwhile = marked.len() - BEFORE as usize;
    if looks {
        disk.write_back();
        store.settle();
    }
    let synced = store.sync();
    let noticed = synced.is_err() || store.stats().background_errors > 0;
    ensure!(noticed || meanwhile < AFTER as usize, "the disk takes everything");
    if store.stats().write_back_failed {
        ensure!(
            store.guaranteed_since()
                > Timestamp::from(std::time::SystemTime::now() - Duration::from_secs(60))
        );
    }
    ensure!(missing(&store, &marked)? == 0, "lost on the full disk");
    disk.make_room()?;
    store.sync().context("with room again")?;
    ensure!(!store.stats().write_back_failed, "with room again it is healed");
    drop_caches()?;
    ensure!(missing(&store, &marked)? == 0, "lost when the kernel dropped what it had");
    shut_down(&disk.mount)?;
    drop(store);
    unmount(&disk.mount)?;
    mount_image(&disk.under.join("image"), &disk.mount)?;
    let store = open_on(builder(level), &disk.store(), 1)?;
    let lost = missing(&store, &marked)?;
    told(&store, &disk, lost)?;
    store.close()?;
    Ok(format!("{meanwhile} batches marked meanwhile, {lost} keys lost by the disk and told"))
}

/// What is lost is told. Such a disk loses files whose sync it has acknowledged, too.
fn told(store: &Dedup, disk: &Disk, lost: u64) -> Result<()> {
    let began = Timestamp::from(fs::metadata(disk.store().join("STORE"))?.modified()?);
    let (since, report) = (store.guaranteed_since(), store.stats().recovery);
    let is_told = since > began && !report.damage.is_empty();
    ensure!(lost == 0 || is_told, "{lost} keys are lost, and it vouches since {since}: {report:?}");
    Ok(())
}

/// The process dies while the kernel still has what the disk did not take; then the kernel drops it.
fn killed(level: Level, work: &Path) -> Result<u64> {
    let disk = Disk::new(work)?;
    let list = work.join("told");
    let status = Command::new(std::env::current_exe()?)
        .arg("write-back-child")
        .args(["--store".as_ref(), disk.store().as_os_str(), "--told".as_ref(), list.as_os_str()])
        .args([
            "--under".as_ref(),
            disk.under.as_os_str(),
            "--mount".as_ref(),
            disk.mount.as_os_str(),
        ])
        .args(["--level", &(level as u64).to_string()])
        .status()?;
    ensure!(status.signal() == Some(6), "the child: {status}");
    let marked: Vec<u64> =
        fs::read_to_string(&list)?.lines().map(str::parse).collect::<Result<_, _>>()?;
    drop_caches()?;
    disk.make_room()?;
    let store = builder(level).open(disk.store())?;
    let lost = missing(&store, &marked)?;
    told(&store, &disk, lost)?;
    drop(store);
    Ok(lost)
}

pub(crate) fn child(args: &Args) -> Result<()> {
    let level = Level::ALL[args.number::<usize>("level", 0)?];
    let (under, mount) = (args.text("under")?.into(), args.text("mount")?.into());
    let disk = Disk { under, mount, is_borrowed: true };
    let store = builder(level).open(args.text("store")?)?;
    let mut marked = mark(&store, 0..BEFORE)?;
    disk.fill()?;
    marked.extend(mark(&store, BEFORE..BEFORE + AFTER)?);
    disk.write_back();
    let told: Vec<String> = marked.iter().map(u64::to_string).collect();
    fs::write(args.text("told")?, told.join("\n"))?;
    std::process::abort()
}
