//! Input files: opening them, and what they look like before they are read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// One input file, or stdin.
pub(crate) struct Source {
    name: String,
    file: File,
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let name = display_name(path);
        let file = if is_stdin(path) { stdin() } else { File::open(path) };
        Ok(Source { file: file.with_context(|| name.clone())?, name })
    }

    /// For messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads once: what there is, so that a slow producer's lines are not held back. Zero at the end.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> Result<usize> {
        loop {
            match self.file.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done.with_context(|| self.name.clone()),
            }
        }
    }
}

pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn display_name(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".into() } else { path.display().to_string() }
}

/// How many bytes the inputs hold, `None` when one is not a file. Fails on one that does not exist,
/// before anything is read.
pub(crate) fn total_bytes(paths: &[PathBuf]) -> Result<Option<u64>> {
    let mut total = Some(0);
    for path in paths {
        let metadata = if is_stdin(path) {
            stdin().and_then(|file| file.metadata())
        } else {
            std::fs::metadata(path)
        };
        let metadata = metadata.with_context(|| display_name(path))?;
        total = total.filter(|_| metadata.is_file()).map(|total| total + metadata.len());
    }
    Ok(total)
}

/// A handle of its own: the standard one copies through a buffer.
fn stdin() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}
