//! What is left of the keys that a store has acknowledged when its process is killed: a child
//! inserts and notes how far it is, is killed with SIGKILL in the middle, and the keys are asked for
//! again. Of Redis and PostgreSQL the server is killed as well.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use onceonly::Dedup;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::{Args, Result};
use crate::contestants::Contestant;
use crate::contestants::stores::{Fjall, Lmdb, Postgres, Redis, Rotating, Sqlite};
use crate::keys::{Key, key};
use crate::report::{Table, say};

const SEED: u64 = 0x2e3e_3be2;
const BATCH: u64 = 1000;
const LIVE: u64 = 10_000_000;
const LIMIT: Duration = Duration::from_secs(120);
const PEERS: &str = "onceonly,lmdb,fjall,sqlite,redis,postgres";

pub(crate) fn main(mut args: Args) -> Result<()> {
    let keys = args.count("keys", 200_000)?;
    let peers = args.words("peer", PEERS);
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let head = ["store", "acknowledged", "remembered", "lost", "killed"];
    let mut table = Table::new("what is remembered after kill -9", &head);
    let mut lost_by_us = 0;
    for peer in &peers {
        match one(peer, keys, &dir) {
            Ok((acknowledged, remembered)) => {
                let lost = acknowledged - remembered;
                lost_by_us += if peer == "onceonly" { lost } else { 0 };
                table.row([
                    peer.clone(),
                    acknowledged.to_string(),
                    remembered.to_string(),
                    lost.to_string(),
                    match peer.as_str() {
                        "redis" | "postgres" => "client and server".to_owned(),
                        _ => "process".to_owned(),
                    },
                ]);
            }
            Err(error) => say(format_args!("left out: {peer}: {error}"))?,
        }
    }
    for peer in ["hashbrown", "dashmap", "moka", "quick_cache", "lru", "sbbf", "fastbloom"] {
        let nothing = || "0".to_owned();
        table.row([
            peer.to_owned(),
            "-".to_owned(),
            nothing(),
            "-".to_owned(),
            "in memory only".to_owned(),
        ]);
    }
    table.show(csv.as_deref())?;
    if lost_by_us == 0 { Ok(()) } else { Err(format!("{lost_by_us} keys lost").into()) }
}

/// How many keys were acknowledged, and how many of them are remembered.
fn one(peer: &str, keys: u64, dir: &Path) -> Result<(u64, u64)> {
    let dir = tempfile::Builder::new().prefix("remembers-").tempdir_in(dir)?;
    let progress = dir.path().join("progress");
    fs::write(&progress, [0; 16])?;
    let state = dir.path().join("state");
    fs::create_dir(&state)?;
    let read = |at: usize| -> Result<u64> {
        Ok(u64::from_ne_bytes(fs::read(&progress)?[at..at + 8].try_into()?))
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["remembers-child", "--peer", peer]).arg("--dir").arg(dir.path());
    let mut child = command.spawn()?;
    let start = Instant::now();
    while read(0)? < keys {
        if let Some(status) = child.try_wait()? {
            return Err(status.to_string().into());
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Err("too slow".into());
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    child.kill()?;
    child.wait()?;
    let (acknowledged, server) = (read(0)?, read(8)?);
    if let Some(server) = Pid::from_raw(i32::try_from(server)?) {
        kill_process(server, Signal::KILL)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    let store = open(peer, &state)?;
    let mut remembered = 0;
    for from in (0..acknowledged).step_by(BATCH as usize) {
        let answers = store.observe(&batch(from))?;
        remembered += answers.iter().filter(|&&seen| seen).count() as u64;
    }
    Ok((acknowledged, remembered))
}

fn batch(from: u64) -> Vec<Key> {
    (from..from + BATCH).map(|index| key(SEED, index)).collect()
}

enum Kept {
    Ours(Dedup),
    Other(Box<dyn Contestant>),
}

fn open(peer: &str, path: &Path) -> Result<Kept> {
    Ok(match peer {
        "onceonly" => {
            let builder = Dedup::builder().window(Duration::from_secs(24 * 3600));
            Kept::Ours(builder.expected_keys(LIVE).open(path.join("store"))?)
        }
        "redis" => Kept::Other(Box::new(Rotating::<Redis>::at(LIVE, path)?)),
        "lmdb" => Kept::Other(Box::new(Rotating::<Lmdb>::at(LIVE, path)?)),
        "fjall" => Kept::Other(Box::new(Rotating::<Fjall>::at(LIVE, path)?)),
        "sqlite" => Kept::Other(Box::new(Rotating::<Sqlite>::at(LIVE, path)?)),
        "postgres" => Kept::Other(Box::new(Rotating::<Postgres>::at(LIVE, path)?)),
        other => return Err(format!("no peer that keeps anything is named {other:?}").into()),
    })
}

impl Kept {
    fn observe(&self, keys: &[Key]) -> Result<Vec<bool>> {
        let mut answers = vec![false; keys.len()];
        match self {
            Kept::Ours(store) => {
                let verdicts = store.observe_batch(keys).map_err(|e| e.into_parts().1)?;
                let seen = verdicts.into_iter().map(|v| v == onceonly::Verdict::Duplicate);
                return Ok(seen.collect());
            }
            Kept::Other(peer) => peer.observe_batches(keys, keys.len(), &mut answers),
        }
        Ok(answers)
    }
}

/// Inserts until it is killed, and notes after each batch how far it has come.
pub(crate) fn child(mut args: Args) -> Result<()> {
    let peer = args.text("peer", "");
    let dir = args.data_dir()?;
    args.finish()?;
    let file = File::options().read(true).write(true).open(dir.join("progress"))?;
    // SAFETY: the file is a few bytes long, never truncated, and only ever read by others.
    let mut progress = unsafe { MmapMut::map_mut(&file) }?;
    let store = open(&peer, &dir.join("state"))?;
    if let Kept::Other(peer) = &store
        && let Some(pid) = peer.server_pid()
    {
        progress[8..16].copy_from_slice(&u64::from(pid).to_ne_bytes());
    }
    for from in (0..).step_by(BATCH as usize) {
        if store.observe(&batch(from))?.contains(&true) {
            return Err(format!("a key from {from} on was known before it came").into());
        }
        progress[..8].copy_from_slice(&(from + BATCH).to_ne_bytes());
    }
    Ok(())
}
