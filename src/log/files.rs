//! The files of the log: one in use, one ready, and those whose records are not sealed yet.

use std::sync::Arc;

use super::Level;
use crate::error::Result;
use crate::format::header::{FileHeader, FileKind};
use crate::format::log::{BlockHead, Entries, FIRST_BLOCK};
use crate::format::manifest::LogEntry;
use crate::format::names::{self, Kind};
use crate::ledger::Ledger;
use crate::storage::FileWriter;
use crate::sync::Mutex;

/// What the log asks of the store that it belongs to.
pub(crate) trait Host {
    /// The store's time.
    fn now_ns(&self) -> i64;

    /// Fills in where time stands.
    fn stamp(&self, head: &mut BlockHead);

    /// The boot of the machine.
    fn boot_id(&self) -> [u8; 16];

    /// Segments of the journal that hold records and are not sealed.
    fn unsealed(&self) -> Vec<u64>;

    /// Undoes what was marked in all epochs up to `last` that is not on the disk: those who marked
    /// it get an error.
    fn withdraw(&self, last: u64);

    /// Nothing from `end` on counts in the log `file`.
    fn log_failed(&self, file: u64, end: u64);

    /// A file was ended: another spare one will be needed.
    fn log_ended(&self);
}

pub(super) struct Files {
    ledger: Arc<Ledger>,
    level: Level,
    capacity: u64,
    current: Option<File>,
    spare: Option<File>,
    /// Ended files, each with the segments that were not sealed then.
    ended: Vec<(u64, Vec<u64>)>,
    buffer: Vec<u8>,
}

struct File {
    id: u64,
    out: Box<dyn FileWriter>,
    capacity: u64,
    /// Where the next block goes; all before it is synced.
    offset: u64,
    blocks: u64,
    /// A write or a sync failed: whatever comes next, it is not done here.
    broken: bool,
}

/// Zeros written at a time.
const PIECE: usize = 1 << 20;

impl File {
    /// A file with all its space. At level `Sync` it is written once in advance: a sync of blocks
    /// that were never written has to commit to the file system's journal too, which takes about
    /// twice as long.
    fn create(ledger: &Ledger, level: Level, capacity: u64, boot_id: [u8; 16]) -> Result<Self> {
        let (storage, id) = (ledger.storage(), ledger.next_file());
        let name = names::numbered(Kind::Log, id);
        let word = |at: usize| u64::from_le_bytes(boot_id[at..at + 8].try_into().expect("8 bytes"));
        let fields = [level.code(), word(0), word(8), capacity, 0, 0];
        let header = FileHeader { kind: FileKind::Log, store: ledger.store(), id, fields };
        let write = || -> Result<Box<dyn FileWriter>> {
            let mut out = storage.create_written(&name, capacity)?;
            if level == Level::Sync {
                let zeros = vec![0; PIECE.min(capacity as usize)];
                for at in (0..capacity).step_by(PIECE) {
                    let len = zeros.len().min((capacity - at) as usize);
                    out.write_at(at, &zeros[..len])?;
                }
            }
            out.write_at(0, &header.encode())?;
            out.sync()?;
            storage.sync_names()?;
            Ok(out)
        };
        match write() {
            Ok(out) => {
                Ok(File { id, out, capacity, offset: FIRST_BLOCK, blocks: 0, broken: false })
            }
            Err(error) => {
                let _ = storage.remove(&name);
                Err(error)
            }
        }
    }

    fn has_room(&self, len: u64) -> bool {
        !self.broken && self.offset + len <= self.capacity
    }
}

impl Files {
    pub(super) fn new(ledger: Arc<Ledger>, level: Level, capacity: u64) -> Self {
        Files {
            ledger,
            level,
            capacity: capacity.next_multiple_of(crate::format::PAGE as u64),
            current: None,
            spare: None,
            ended: Vec::new(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Writes one block and syncs it. Should that fail, it is written once more to another file: a
    /// sync that failed is never repeated, because the kernel may have dropped the pages, and the
    /// second one would succeed without them.
    pub(super) fn write(
        &mut self,
        entries: &Entries,
        covered_ns: i64,
        host: &dyn Host,
    ) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let len = entries.block_len();
        if !self.current.as_ref().is_some_and(|file| file.has_room(len)) {
            self.begin_next(len, host)?;
        }
        let Err(error) = self.write_block(entries, covered_ns, host) else { return Ok(()) };
        let written = match self.begin_next(len, host) {
            Ok(()) => self.write_block(entries, covered_ns, host),
            Err(_) => Err(error),
        };
        if let (Err(_), Some(file)) = (&written, &self.current) {
            // The kernel may have the block all the same. It is undone, so it must not be read back,
            // should this process die before the manifest knows where the file ends.
            host.log_failed(file.id, file.offset);
        }
        written
    }

    fn write_block(&mut self, entries: &Entries, covered_ns: i64, host: &dyn Host) -> Result<()> {
        let Some(file) = &mut self.current else { return Ok(()) };
        let sequence = file.blocks + 1;
        let synced = file.offset;
        let mut head = BlockHead { sequence, synced, covered_ns, ..BlockHead::default() };
        host.stamp(&mut head);
        entries.block(self.ledger.store(), file.id, &head, &mut self.buffer);
        let written = file.out.write_at(file.offset, &self.buffer).and_then(|()| file.out.sync());
        if written.is_ok() {
            file.blocks = sequence;
            file.offset += self.buffer.len() as u64;
        }
        file.broken |= written.is_err();
        written
    }

    /// Ends the file in use and begins another with room for a block of `len`. On an error nothing
    /// has changed.
    pub(super) fn begin_next(&mut self, len: u64, host: &dyn Host) -> Result<()> {
        let needed = (FIRST_BLOCK + len).next_multiple_of(crate::format::PAGE as u64);
        let next = match self.spare.take().filter(|spare| spare.has_room(len)) {
            Some(spare) => spare,
            None => {
                let capacity = self.capacity.max(needed);
                File::create(&self.ledger, self.level, capacity, host.boot_id())?
            }
        };
        let ended = self.current.as_ref().map(|file| (file.id, file.offset));
        let named = self.ledger.update(|manifest| {
            end_in(&mut manifest.logs, ended);
            manifest.logs.push(LogEntry { file: next.id, end: LogEntry::IN_USE });
        });
        if let Err(error) = named {
            // The manifest on the disk may name it: it stays.
            self.spare = Some(next);
            return Err(error);
        }
        self.ended.extend(ended.map(|(id, _)| (id, host.unsealed())));
        self.current = Some(next);
        host.log_ended();
        Ok(())
    }

    /// Ends the file in use; the next block begins another.
    pub(super) fn end(&mut self, host: &dyn Host) -> Result<()> {
        let Some(file) = &self.current else { return Ok(()) };
        if file.blocks == 0 && !file.broken {
            return Ok(());
        }
        if self.level >= Level::Interval {
            return self.begin_next(0, host);
        }
        let ended = (file.id, file.offset);
        self.ledger.update(|manifest| end_in(&mut manifest.logs, Some(ended)))?;
        self.ended.push((ended.0, host.unsealed()));
        self.current = None;
        Ok(())
    }

    pub(super) fn prepare_spare(files: &Mutex<Files>, host: &dyn Host) -> Result<()> {
        let (ledger, level, capacity) = {
            let files = files.lock();
            if files.level < Level::Interval || files.spare.is_some() {
                return Ok(());
            }
            (Arc::clone(&files.ledger), files.level, files.capacity)
        };
        // Without the lock: writing a file takes its time, and blocks go on meanwhile.
        let spare = File::create(&ledger, level, capacity, host.boot_id())?;
        let mut files = files.lock();
        if files.spare.is_none() {
            files.spare = Some(spare);
        } else {
            let _ = ledger.storage().remove(&names::numbered(Kind::Log, spare.id));
        }
        Ok(())
    }

    pub(super) fn droppable(&self, unsealed: &[u64]) -> Vec<u64> {
        let sealed = |needs: &[u64]| !needs.iter().any(|segment| unsealed.contains(segment));
        self.ended.iter().filter(|(_, needs)| sealed(needs)).map(|(id, _)| *id).collect()
    }

    pub(super) fn dropped(&mut self, dropped: &[u64]) {
        self.ended.retain(|(id, _)| !dropped.contains(id));
        for id in dropped {
            // Should that fail, the next open does it.
            let _ = self.ledger.storage().remove(&names::numbered(Kind::Log, *id));
        }
    }

    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    pub(super) fn close(&mut self) -> Option<(u64, u64)> {
        if let Some(spare) = self.spare.take() {
            let _ = self.ledger.storage().remove(&names::numbered(Kind::Log, spare.id));
        }
        self.current.take().map(|file| (file.id, file.offset))
    }
}

/// Notes where a log ends.
pub(crate) fn end_in(logs: &mut [LogEntry], ended: Option<(u64, u64)>) {
    let Some((id, end)) = ended else { return };
    for log in logs.iter_mut().filter(|log| log.file == id) {
        log.end = end;
    }
}
