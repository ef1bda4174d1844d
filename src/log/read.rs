//! Reading logs back after a power loss.

use super::Level;
use crate::error::{Error, Result};
use crate::format::clock::Anchor;
use crate::format::header::{FILE_HEADER_LEN, FileHeader, FileKind};
use crate::format::log::{self, Entry};
use crate::format::manifest::LogEntry;
use crate::format::names::{self, Kind};
use crate::format::{PAGE, StoreId};
use crate::storage::Storage;

/// What all logs of a store hold together.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// In the order in which it took effect.
    pub(crate) entries: Vec<Entry>,
    /// The newest record of time.
    pub(crate) anchor: Option<Anchor>,
    /// Every mark that was acknowledged before this instant is here.
    pub(crate) covered_ns: i64,
    pub(crate) blocks: u64,
}

/// Reads the logs that a manifest names. An error says that one is missing or damaged.
pub(crate) fn read_all(storage: &dyn Storage, store: StoreId, logs: &[LogEntry]) -> Result<Logged> {
    let mut all = Logged { covered_ns: i64::MIN, ..Logged::default() };
    for entry in logs {
        read_one(storage, store, entry, &mut all)?;
    }
    Ok(all)
}

fn read_one(
    storage: &dyn Storage,
    store: StoreId,
    entry: &LogEntry,
    all: &mut Logged,
) -> Result<()> {
    let name = names::numbered(Kind::Log, entry.file);
    let damaged = |why: String| Error::corrupt(storage.path(&name), why);
    let region = storage.open(&name, false)?;
    let mut bytes = vec![0; region.len()];
    region.read_bytes(0, &mut bytes);
    if bytes.len() < PAGE {
        return Err(damaged("it is shorter than its header".to_owned()));
    }
    let header = &bytes[..FILE_HEADER_LEN];
    let [level, low, high, ..] = FileHeader::decode(header, FileKind::Log, store, entry.file)
        .map_err(|why| damaged(why.to_owned()))?;
    let end = Some(entry.end).filter(|end| *end != LogEntry::IN_USE);
    let content = log::read(&bytes, store, entry.file, end).map_err(damaged)?;
    all.blocks += content.blocks;
    all.entries.extend(content.entries);
    let Some(head) = content.last else { return Ok(()) };
    if Level::code_has_marks(level) {
        all.covered_ns = all.covered_ns.max(head.covered_ns);
    }
    let mut boot_id = [0; 16];
    boot_id[..8].copy_from_slice(&low.to_le_bytes());
    boot_id[8..].copy_from_slice(&high.to_le_bytes());
    let anchor = Anchor {
        sequence: 0,
        engine_ns: head.engine_ns,
        boot_ns: head.boot_ns,
        wall_ns: head.wall_ns,
        boot_id,
        watermark_ns: head.watermark_ns,
    };
    if all.anchor.is_none_or(|known| known.engine_ns <= anchor.engine_ns) {
        all.anchor = Some(anchor);
    }
    Ok(())
}
