//! Reading: a thread that fills blocks from the inputs and cuts them into records, while the store
//! decides about the records before.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Error, Result, bail};

use crate::input::Source;
use crate::recent::Digester;
use crate::record::{Batch, Splitter};

/// As much as is read at once: large enough to make system calls and hand-overs cheap, small enough
/// to stay in the second-level cache until the lines are written.
const BLOCK_LEN: usize = 256 * 1024;
/// The longest record, within which places are kept in 32 bits.
const MAX_BLOCK_LEN: usize = 1 << 31;
/// One is being filled, one is being decided, and one waits between.
const BLOCKS: usize = 3;

/// The deciding thread's end of the reading thread.
pub(crate) struct Reader {
    full: Receiver<Block>,
    free: Sender<Block>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts to read `paths`, one after the other. With a `digester`, keys are digested as well.
    pub(crate) fn start(
        paths: Vec<PathBuf>,
        splitter: Splitter,
        digester: Option<Digester>,
        line_end: u8,
    ) -> Result<Self> {
        let (to_decider, full) = channel();
        let (free, from_decider) = channel();
        for _ in 0..BLOCKS {
            free.send(Block::new(line_end)).context("cannot start to read")?;
        }
        let mut filler = Filler { splitter, digester, from_decider, to_decider };
        let thread = thread::Builder::new()
            .name("onceonly-reader".into())
            // When the decider is gone, so is everything to do.
            .spawn(move || drop(filler.read_all(&paths)))
            .context("cannot start to read")?;
        Ok(Reader { full, free, thread: Some(thread) })
    }

    /// The next block, `None` at the end. Calls `idle` before waiting for a slow input.
    pub(crate) fn next(&mut self, idle: impl FnOnce() -> Result<()>) -> Result<Option<Block>> {
        match self.full.try_recv() {
            Ok(block) => return Ok(Some(block)),
            Err(TryRecvError::Disconnected) => {}
            Err(TryRecvError::Empty) => {
                idle()?;
                if let Ok(block) = self.full.recv() {
                    return Ok(Some(block));
                }
            }
        }
        // A reader that broke down must not look like the end of the input.
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => bail!("reading broke off by a defect of this program"),
            _ => Ok(None),
        }
    }

    /// Lets the memory of a block be filled again.
    pub(crate) fn give_back(&self, block: Block) {
        // An error says that everything has been read.
        let _ = self.free.send(block);
    }
}

/// The reading thread.
struct Filler {
    splitter: Splitter,
    digester: Option<Digester>,
    from_decider: Receiver<Block>,
    to_decider: Sender<Block>,
}

/// The decider has stopped.
struct Stopped;

impl Filler {
    fn read_all(&mut self, paths: &[PathBuf]) -> Result<(), Stopped> {
        for path in paths {
            let failed = match Source::open(path) {
                Ok(mut source) => self.read(&mut source)?,
                Err(error) => {
                    let mut block = self.from_decider.recv().map_err(|_| Stopped)?;
                    block.start(&Arc::from(""), 0, &[]);
                    block.failure = Some(error);
                    self.hand_over(block)?
                }
            };
            if failed {
                break;
            }
        }
        Ok(())
    }

    /// Reads one source; true when it failed.
    fn read(&mut self, source: &mut Source) -> Result<bool, Stopped> {
        self.splitter.start_source();
        let name = Arc::from(source.name());
        let mut rest = Vec::new();
        let mut lines = 0;
        loop {
            let mut block = self.from_decider.recv().map_err(|_| Stopped)?;
            block.start(&name, lines, &rest);
            block.failure = block.fill(source, &mut self.splitter).err();
            if let Some(digester) = self.digester {
                block.batch.digest_keys(&block.bytes[..block.len], digester);
            }
            lines += block.batch.lines;
            rest.clear();
            rest.extend_from_slice(&block.bytes()[block.batch.used..]);
            let ends = block.ends_source;
            let failed = self.hand_over(block)?;
            if failed || ends {
                return Ok(failed);
            }
        }
    }

    /// True when nothing follows the block.
    fn hand_over(&self, block: Block) -> Result<bool, Stopped> {
        let failed = block.failure.is_some();
        self.to_decider.send(block).map_err(|_| Stopped)?;
        Ok(failed)
    }
}

/// A block of input and its records.
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// How many of them were read.
    len: usize,
    pub(crate) batch: Batch,
    line_end: u8,
    source: Arc<str>,
    /// Line ends of the source before this block.
    lines_before: u64,
    /// Newly read bytes.
    pub(crate) read: u64,
    pub(crate) ends_source: bool,
    /// Why nothing follows; the records of this block came before.
    pub(crate) failure: Option<Error>,
}

impl Block {
    fn new(line_end: u8) -> Self {
        Block {
            bytes: Vec::new(),
            len: 0,
            batch: Batch::default(),
            line_end,
            source: Arc::from(""),
            lines_before: 0,
            read: 0,
            ends_source: false,
            failure: None,
        }
    }

    /// The bytes that records have their places in.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Empties it, but for the start of a record that the block before this one could not complete.
    fn start(&mut self, source: &Arc<str>, lines_before: u64, rest: &[u8]) {
        let room = rest.len() + BLOCK_LEN;
        if self.bytes.len() > 2 * room {
            // One long record does not hold its memory for ever.
            self.bytes = Vec::new();
        }
        self.bytes.resize(self.bytes.len().max(room), 0);
        self.bytes[..rest.len()].copy_from_slice(rest);
        self.len = rest.len();
        self.batch.clear();
        self.source = Arc::clone(source);
        self.lines_before = lines_before;
        (self.read, self.ends_source, self.failure) = (0, false, None);
    }

    /// Reads until there is a whole record, or the end.
    fn fill(&mut self, source: &mut Source, splitter: &mut Splitter) -> Result<()> {
        while self.batch.used == 0 && !self.ends_source {
            if self.bytes.len() - self.len < BLOCK_LEN / 2 {
                if self.len >= MAX_BLOCK_LEN {
                    bail!("{}: a record is longer than 2 GiB", source.name());
                }
                self.bytes.resize(self.len + self.len.max(BLOCK_LEN), 0);
            }
            let until = self.bytes.len().min(self.len + BLOCK_LEN);
            let read = source.read(&mut self.bytes[self.len..until])?;
            self.len += read;
            self.read += read as u64;
            self.ends_source = read == 0;
            let block = &self.bytes[..self.len];
            if let Err(fault) = splitter.split(block, self.ends_source, &mut self.batch) {
                return Err(fault.error.context(self.line_of(fault.at)));
            }
        }
        Ok(())
    }

    /// The file and line of the byte at `at`, for messages.
    pub(crate) fn line_of(&self, at: usize) -> String {
        let before = memchr::memchr_iter(self.line_end, &self.bytes[..at]).count() as u64;
        format!("{}: line {}", self.source, self.lines_before + before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Format, MissingKey};
    use crate::record::Wanted;

    fn read_lines(content: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("input");
        std::fs::write(&path, content).unwrap();
        let wanted = Wanted { keys: Vec::new(), time: None, missing: MissingKey::Error };
        let splitter = Splitter::new(Format::Lines, wanted, true, b'\n');
        let mut reader = Reader::start(vec![path.clone(), path], splitter, None, b'\n').unwrap();
        let mut lines = Vec::new();
        let mut largest = 0;
        while let Some(block) = reader.next(|| Ok(())).unwrap() {
            assert!(block.failure.is_none());
            for record in &block.batch.records {
                lines.push(block.bytes()[record.bytes()].to_vec());
            }
            largest = largest.max(block.bytes.len());
            reader.give_back(block);
        }
        (lines, largest)
    }

    #[test]
    fn records_are_whole_wherever_blocks_end() {
        let line = |n: usize| vec![b'a' + (n % 26) as u8; n * n % 3_000];
        let content = (0..2_000).map(line).collect::<Vec<_>>().join(&b'\n');
        let (lines, largest) = read_lines(&content);
        let expected: Vec<_> = content.split_inclusive(|b| *b == b'\n').collect();
        assert!(lines == [&expected[..], &expected[..]].concat());
        assert!(largest < 2 * BLOCK_LEN, "{largest}");
    }

    #[test]
    fn a_record_may_be_longer_than_a_block() {
        let mut content = vec![b'x'; 5 * BLOCK_LEN + 17];
        content.extend_from_slice(b"\nshort\n");
        let (lines, _) = read_lines(&content);
        assert_eq!(lines.len(), 4);
        assert!(lines[2].len() == 5 * BLOCK_LEN + 18 && lines[3] == b"short\n");
    }

    #[test]
    fn what_cannot_be_opened_is_told_after_what_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("input");
        std::fs::write(&path, "a\n").unwrap();
        let wanted = Wanted { keys: Vec::new(), time: None, missing: MissingKey::Error };
        let splitter = Splitter::new(Format::Lines, wanted, true, b'\n');
        let paths = vec![path, dir.path().join("absent")];
        let mut reader = Reader::start(paths, splitter, None, b'\n').unwrap();
        let mut told = Vec::new();
        while let Some(block) = reader.next(|| Ok(())).unwrap() {
            told.push((block.batch.records.len(), block.failure.is_some()));
        }
        assert_eq!(told, [(1, false), (0, false), (0, true)]);
    }
}
