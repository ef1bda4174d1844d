//! Input: the files one after the other, and the block of bytes that records are cut from.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// As much as is read at once: large enough to make system calls cheap, small enough to stay in the
/// second-level cache until the lines are written.
pub(crate) const BLOCK_LEN: usize = 256 * 1024;

/// One input file, or stdin.
pub(crate) struct Source {
    name: String,
    file: File,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = display_name(path);
        let file = if is_stdin(path) {
            // A handle of its own: the standard one copies through a buffer.
            io::stdin().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::open(path)
        };
        Ok(Source { file: file.with_context(|| name.clone())?, name })
    }

    /// For messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn display_name(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".into() } else { path.display().to_string() }
}

/// The bytes that were read and not yet used. Grows when one record is longer than a block.
pub(crate) struct Block {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
}

impl Block {
    pub(crate) fn new() -> Self {
        Block { bytes: vec![0; BLOCK_LEN], start: 0, end: 0, at_end: false }
    }

    /// Prepares for the next source.
    pub(crate) fn reset(&mut self) {
        (self.start, self.end, self.at_end) = (0, 0, false);
    }

    /// What was read and not consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing follows the unread bytes.
    pub(crate) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Counts the first `count` unread bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
    }

    /// Reads once: what there is, so that a slow producer's lines are not held back.
    pub(crate) fn fill(&mut self, source: &mut Source) -> Result<usize> {
        self.make_room();
        let until = self.bytes.len().min(self.end + BLOCK_LEN);
        let count = loop {
            match source.file.read(&mut self.bytes[self.end..until]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done.with_context(|| source.name.clone())?,
            }
        };
        self.end += count;
        self.at_end = count == 0;
        Ok(count)
    }

    /// Moves the start of an unfinished record to the front; doubles the block when that record
    /// fills it, so that a long record is moved a constant number of times.
    fn make_room(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }
}

/// How many bytes the regular files among `paths` hold, and how long their lines are by a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Estimate {
    /// `None` when an input is not a regular file.
    pub(crate) total_bytes: Option<u64>,
    pub(crate) total_lines: Option<u64>,
}

/// Looks at the inputs before they are read; fails on one that does not exist.
pub(crate) fn estimate(paths: &[PathBuf], line_end: u8) -> Result<Estimate> {
    let mut total_bytes = 0;
    let mut total_lines = 0;
    let mut known = true;
    for path in paths {
        let name = || display_name(path);
        let metadata = if is_stdin(path) {
            let handle = io::stdin().as_fd().try_clone_to_owned().map(File::from);
            handle.and_then(|file| file.metadata()).with_context(name)?
        } else {
            std::fs::metadata(path).with_context(name)?
        };
        known &= metadata.is_file();
        if !metadata.is_file() || is_stdin(path) {
            continue;
        }
        total_bytes += metadata.len();
        let mut sample = Vec::new();
        let file = File::open(path).with_context(name)?;
        file.take(64 * 1024).read_to_end(&mut sample).with_context(name)?;
        let lines = memchr::memchr_iter(line_end, &sample).count().max(1) as u64;
        total_lines += metadata.len() * lines / (sample.len() as u64).max(1);
    }
    let given = |total: u64| known.then_some(total);
    Ok(Estimate { total_bytes: given(total_bytes), total_lines: given(total_lines) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_of(bytes: &[u8]) -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("input");
        std::fs::write(&path, bytes).unwrap();
        let source = Source::open(&path).unwrap();
        (dir, source)
    }

    #[test]
    fn a_record_longer_than_the_block_makes_it_grow() {
        let content: Vec<u8> = (0..3 * BLOCK_LEN + 17).map(|at| (at % 251) as u8).collect();
        let (_dir, mut source) = source_of(&content);
        let mut block = Block::new();
        while !block.at_end() {
            block.fill(&mut source).unwrap();
        }
        assert!(block.unread() == content);
    }

    #[test]
    fn consumed_bytes_make_room() {
        let content: Vec<u8> = (0..3 * BLOCK_LEN).map(|at| (at % 251) as u8).collect();
        let (_dir, mut source) = source_of(&content);
        let mut block = Block::new();
        let mut seen = Vec::new();
        while !block.at_end() {
            block.fill(&mut source).unwrap();
            let take = block.unread().len() / 3 * 2;
            seen.extend_from_slice(&block.unread()[..take]);
            block.consume(take);
        }
        seen.extend_from_slice(block.unread());
        assert!(seen == content);
        assert_eq!(block.bytes.len(), BLOCK_LEN);
    }
}
