//! Lines: a newline or a NUL ends each, and the bytes before it are the key.

use memchr::memchr_iter;

use super::Batch;

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
            batch.push_plain(start..end + 1, start..self.key_end(block, start, end));
            start = end + 1;
            if batch.is_full() {
                break;
            }
        }
        self.searched = if batch.is_full() { 0 } else { block.len() - start };
        if at_end && start < block.len() && !batch.is_full() {
            // The last line has no end, so a carriage return there is part of the key.
            batch.push_plain(start..block.len(), start..block.len());
            start = block.len();
            self.searched = 0;
        }
        batch.used = start;
        batch.lines = batch.records.len() as u64;
    }

    #[inline]
    fn key_end(&self, block: &[u8], start: usize, end: usize) -> usize {
        let crlf = self.line_end == b'\n' && end > start && block[end - 1] == b'\r';
        end - usize::from(crlf)
    }
}
