//! Full disks and limits on real file systems: a tmpfs and an ext4 of a fixed size, `RLIMIT_FSIZE`,
//! a limit of memory. Needs root and Linux.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use onceonly::{Builder, Dedup, Error, Verdict};

use crate::args::Args;
use crate::common::ops::Level;
use crate::power::{make_image, mount_image, unmount};

/// Keys of a batch.
const BATCH: u64 = 500;
/// A disk of a few megabytes is full long before.
const MOST_BATCHES: u64 = 20_000;

pub(crate) fn run(_args: &Args) -> Result<()> {
    let work = tempfile::Builder::new().prefix("onceonly-full").tempdir_in("/dev/shm")?;
    for level in Level::ALL {
        let mount = work.path().join("mount");
        fs::create_dir_all(&mount)?;
        let tmpfs = ["-t", "tmpfs", "-o", "size=6m", "tmpfs"];
        shell(Command::new("mount").args(tmpfs).arg(&mount))?;
        let keys = on_full_disk(level, &mount, |mount| {
            shell(Command::new("mount").args(["-o", "remount,size=64m"]).arg(mount))
        });
        unmount(&mount)?;
        println!("full: tmpfs, {level:?}: {} keys before it was full", keys?);

        let image = work.path().join("image");
        make_image(&image, 16 << 20)?;
        mount_image(&image, &mount)?;
        fs::write(mount.join("ballast"), vec![1; 5 << 20])?;
        let keys = on_full_disk(level, &mount, |mount| Ok(fs::remove_file(mount.join("ballast"))?));
        unmount(&mount)?;
        println!("full: ext4, {level:?}: {} keys before it was full", keys?);

        for limit in ["trap '' XFSZ; ulimit -f 600", "ulimit -v 200000"] {
            let keys = with_limit(level, work.path(), limit)?;
            println!("full: {limit}, {level:?}: {keys} keys before the limit");
        }
    }
    copy_on_write(work.path())
}

/// A real btrfs, where its tools are installed: refused untouched, and works when it is allowed.
fn copy_on_write(work: &Path) -> Result<()> {
    let (image, mount) = (work.join("btrfs"), work.join("mount"));
    fs::File::create(&image)?.set_len(256 << 20)?;
    let made = Command::new("mkfs.btrfs").arg("--quiet").arg(&image).status();
    if matches!(&made, Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        println!("full: btrfs: its tools are not installed");
        return Ok(());
    }
    ensure!(made?.success(), "mkfs.btrfs failed");
    mount_image(&image, &mount)?;
    let checked = refused_unless_allowed(&mount.join("a").join("store"), &mount);
    unmount(&mount)?;
    println!("full: btrfs: refused, and works when it is allowed");
    checked
}

fn refused_unless_allowed(directory: &Path, mount: &Path) -> Result<()> {
    let refused = builder(Level::Process).open(directory);
    ensure!(matches!(refused, Err(Error::Filesystem { name: "btrfs", .. })), "{refused:?}");
    ensure!(fs::read_dir(mount)?.next().is_none(), "something was written");
    for _ in 0..2 {
        let store = builder(Level::Process).allow_any_filesystem(true).open(directory)?;
        store.observe_batch(&batch(0)).map_err(|e| e.into_parts().1)?;
        check(&store, 1)?;
        store.close()?;
    }
    Ok(())
}

fn shell(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn builder(level: Level) -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(3600))
        .expected_keys(2_000)
        .shards(2)
        .durability(level.durability())
}

fn batch(number: u64) -> Vec<String> {
    (0..BATCH).map(|n| format!("{number}-{n}")).collect()
}

/// Marks until that fails; the number of batches that did not.
fn fill(store: &Dedup) -> Result<u64> {
    for number in 0..MOST_BATCHES {
        match store.observe_batch(&batch(number)) {
            Ok(verdicts) => ensure!(verdicts.iter().all(|verdict| *verdict == Verdict::New)),
            Err(error) => {
                let (_, error) = error.into_parts();
                ensure!(error.is_transient(), "{error}");
                return Ok(number);
            }
        }
    }
    bail!("nothing ever failed")
}

fn check(store: &Dedup, batches: u64) -> Result<()> {
    for number in 0..batches {
        let live = store.contains_batch(&batch(number))?;
        ensure!(live.iter().all(|live| *live), "batch {number} was acknowledged and is lost");
    }
    let live = store.contains_batch(&batch(batches))?;
    ensure!(!live.contains(&true), "a batch that got an error is marked");
    Ok(())
}

fn on_full_disk(
    level: Level,
    mount: &Path,
    make_room: impl FnOnce(&Path) -> Result<()>,
) -> Result<u64> {
    let directory = mount.join("store");
    let store = builder(level).open(&directory)?;
    let batches = fill(&store)?;
    check(&store, batches).context("on the full disk")?;
    make_room(mount)?;
    let verdicts = store.observe_batch(&batch(batches)).map_err(|e| e.into_parts().1)?;
    ensure!(verdicts.iter().all(|verdict| *verdict == Verdict::New), "an error marked something");
    store.settle();
    check(&store, batches + 1).context("with room again")?;
    store.close()?;
    let store = builder(level).open(&directory)?;
    check(&store, batches + 1).context("opened again")?;
    store.close()?;
    Ok(batches * BATCH)
}

/// A child fills a store under a limit of its shell; it ends by itself, or is ended for lack of
/// memory, which is a kill like others.
fn with_limit(level: Level, work: &Path, limit: &str) -> Result<u64> {
    let directory = tempfile::tempdir_in(work)?;
    let (store, count) = (directory.path().join("store"), directory.path().join("count"));
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{limit}; exec \"$0\" \"$@\""))
        .arg(std::env::current_exe()?)
        .arg("full-child")
        .args(["--store".as_ref(), store.as_os_str(), "--count".as_ref(), count.as_os_str()])
        .args(["--level", &(level as u64).to_string()])
        .stderr(std::process::Stdio::null())
        .status()?;
    ensure!(status.success() || status.signal() == Some(6), "{limit}: {status}");
    let batches: u64 = fs::read_to_string(&count)?.parse()?;
    let store = builder(level).open(&store)?;
    for number in 0..batches {
        let live = store.contains_batch(&batch(number))?;
        ensure!(live.iter().all(|live| *live), "batch {number} was acknowledged and is lost");
    }
    store.close()?;
    Ok(batches * BATCH)
}

/// A limit of the size of files only keeps parts from being merged, so a child may meet none.
const BATCHES_OF_CHILD: u64 = 400;

/// Writes down after each batch how many there were.
pub(crate) fn child(args: &Args) -> Result<()> {
    let level = Level::ALL[args.number::<usize>("level", 0)?];
    let count = args.text("count")?;
    fs::write(count, "0")?;
    let store = builder(level).open(args.text("store")?)?;
    for number in 0..BATCHES_OF_CHILD {
        if store.observe_batch(&batch(number)).is_err() {
            return check(&store, number);
        }
        fs::write(count, (number + 1).to_string())?;
    }
    Ok(())
}
