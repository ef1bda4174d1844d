//! Lines: a newline or a NUL ends each, and the bytes before it are the key.

use memchr::memchr_iter;

use super::{Batch, KeyAt, place};

pub(crate) struct Lines {
    line_end: u8,
    /// Bytes at the front of the next block that are known to hold no line end.
    searched: usize,
}

impl Lines {
    pub(crate) fn new(line_end: u8) -> Self {
        Lines { line_end, searched: 0 }
    }

    pub(crate) fn start_source(&mut self) {
        self.searched = 0;
    }

    pub(crate) fn split(&mut self, block: &[u8], at_end: bool, batch: &mut Batch) {
        let mut start = 0;
        for found in memchr_iter(self.line_end, &block[self.searched..]) {
            let end = self.searched + found;
            let len = place(self.text_len(&block[start..end]));
            batch.push(start..end + 1, KeyAt::Front { len });
            start = end + 1;
        }
        if at_end && start < block.len() {
            // The last line has no end, so a carriage return there is part of the key.
            let len = place(block.len() - start);
            batch.push(start..block.len(), KeyAt::Front { len });
            start = block.len();
        }
        self.searched = block.len() - start;
        batch.used = start;
        batch.lines = batch.records.len() as u64;
    }

    /// The length of a line, of which `line` is all but the last byte of its end.
    #[inline]
    fn text_len(&self, line: &[u8]) -> usize {
        let crlf = self.line_end == b'\n' && line.last() == Some(&b'\r');
        line.len() - usize::from(crlf)
    }
}
