//! Output: kept records to stdout, in few large writes.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};

/// The reader of stdout has gone: not a failure, but the end of the work.
#[derive(Debug)]
pub(crate) struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stdout was closed by its reader")
    }
}

impl std::error::Error for StdoutClosed {}

/// As much as is gathered before it is written without a flush.
const BUFFER_LEN: usize = 256 * 1024;

pub(crate) struct Output {
    file: File,
    buffer: Vec<u8>,
    /// What ends a record.
    line_end: u8,
    /// The last record of a source had no end; one is put before anything that follows.
    unfinished: bool,
    last_byte: Option<u8>,
    bytes: u64,
}

impl Output {
    pub(crate) fn stdout(line_end: u8) -> Result<Self> {
        // A handle of its own: the standard one looks for line ends in everything.
        let file = io::stdout().as_fd().try_clone_to_owned().context("stdout")?;
        Ok(Output {
            file: File::from(file),
            buffer: Vec::with_capacity(BUFFER_LEN),
            line_end,
            unfinished: false,
            last_byte: None,
            bytes: 0,
        })
    }

    /// Adds the bytes of one or more whole records.
    pub(crate) fn put(&mut self, records: &[u8]) -> Result<()> {
        let Some(&last) = records.last() else { return Ok(()) };
        if self.unfinished {
            self.unfinished = false;
            self.buffer.push(self.line_end);
            self.bytes += 1;
        }
        if self.buffer.len() + records.len() > BUFFER_LEN {
            self.flush()?;
        }
        if records.len() >= BUFFER_LEN {
            write(&mut self.file, records)?;
        } else {
            self.buffer.extend_from_slice(records);
        }
        self.last_byte = Some(last);
        self.bytes += records.len() as u64;
        Ok(())
    }

    /// The source ends here: a last record without an end stays so unless something follows.
    pub(crate) fn end_of_source(&mut self) {
        self.unfinished = self.last_byte.is_some_and(|last| last != self.line_end);
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let written = write(&mut self.file, &self.buffer);
        self.buffer.clear();
        written
    }

    /// Bytes put so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn write(file: &mut File, bytes: &[u8]) -> Result<()> {
    match file.write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        done => done.context("cannot write to stdout"),
    }
}

/// Prints the answer of a command that answers once.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut output = Output::stdout(b'\n')?;
    output.put(text.as_bytes())?;
    output.flush()
}
