//! What the programs read, and how many different lines are in it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::repository;
use crate::args::{Result, shown};
use crate::keys::{Chunk, KEY_LEN, Key, MIN_TICK, Repeat, Stream, key, mix};

const SEED: u64 = 0x11_9e5;
const PER_MILLE: u64 = 20;
const FEW: u64 = 100_000;
/// So often the sample of flights stands in the file, each time as it is.
const FLIGHTS: usize = 50;

pub(super) struct Sample {
    pub(super) title: String,
    pub(super) path: PathBuf,
    /// What `onceonly dedup` is told besides.
    pub(super) options: &'static [&'static str],
    pub(super) distinct: u64,
}

impl Sample {
    /// Writes the file of a kind, such as `uuids-10M`, into `dir`.
    pub(super) fn make(name: &str, dir: &Path) -> Result<Self> {
        let path = dir.join(name);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let (kind, lines) = match name.rsplit_once('-') {
            Some((kind, lines)) => (kind, crate::args::count(lines)?),
            None => (name, 0),
        };
        let many = shown(lines);
        let mut options: &[&str] = &[];
        let (title, distinct) = match kind {
            "uuids" => {
                let title = format!("{many} lines of UUIDs, 2 % duplicates");
                (title, stream(lines, &mut out, write_line)?)
            }
            "few" => {
                let title = format!("{many} lines, {} of them distinct", shown(FEW));
                (title, few(lines, &mut out)?)
            }
            "flights" => (format!("flights table as lines, {FLIGHTS} times"), flights(&mut out)?),
            "ndjson" | "ndjson-id" => {
                let by_id = kind == "ndjson-id";
                options = match by_id {
                    true => &["--format", "ndjson", "--key", "id"],
                    false => &["--format", "ndjson"],
                };
                let by = if by_id { "onceonly by the field id" } else { "whole lines" };
                (format!("{many} NDJSON records, {by}"), stream(lines, &mut out, write_record)?)
            }
            other => return Err(format!("no file is named {other:?}").into()),
        };
        out.flush()?;
        Ok(Sample { title, path, options, distinct })
    }
}

/// `lines` keys, two in a hundred of them repeated from anywhere before. Returns how many are not.
fn stream<W: Write>(
    lines: u64,
    out: &mut W,
    write: impl Fn(&Key, &mut W) -> std::io::Result<()>,
) -> Result<u64> {
    let mut stream = Stream::new(SEED, lines.max(16 * MIN_TICK as u64), PER_MILLE, Repeat::Window);
    let mut chunk = Chunk::default();
    let mut left = usize::try_from(lines)?;
    while left > 0 {
        let len = left.min(1 << 16);
        stream.fill(len, &mut chunk);
        chunk.keys.iter().try_for_each(|key| write(key, out))?;
        left -= len;
    }
    Ok(stream.new_keys())
}

fn write_line(key: &Key, out: &mut impl Write) -> std::io::Result<()> {
    let mut line = [b'\n'; KEY_LEN + 1];
    line[..KEY_LEN].copy_from_slice(key);
    out.write_all(&line)
}

/// Equal ids make equal records, so that programs which compare lines answer the same.
fn write_record(key: &Key, out: &mut impl Write) -> std::io::Result<()> {
    let amount = mix(u64::from_le_bytes(key[..8].try_into().unwrap_or_default())) % 100_000;
    out.write_all(br#"{"type":"order.created","id":""#)?;
    out.write_all(key)?;
    writeln!(out, r#"","amount":{amount},"currency":"EUR","items":[1,2,3]}}"#)
}

fn few(lines: u64, out: &mut impl Write) -> Result<u64> {
    let mut seen = vec![false; FEW as usize];
    for line in 0..lines {
        let index = mix(SEED ^ line) % FEW;
        seen[index as usize] = true;
        write_line(&key(SEED, index), out)?;
    }
    Ok(seen.iter().filter(|&&seen| seen).count() as u64)
}

fn flights(out: &mut impl Write) -> Result<u64> {
    let table = fs::read(repository().join("examples/data/flights.csv"))?;
    for _ in 0..FLIGHTS {
        out.write_all(&table)?;
    }
    let lines: HashSet<&[u8]> = table.split_inclusive(|&byte| byte == b'\n').collect();
    Ok(lines.len() as u64)
}
