//! What the process holds in memory, by the kernel's account.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::args::Result;

/// Resident bytes of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resident {
    /// Heap, stacks, anonymous maps.
    pub(crate) anonymous: u64,
    /// Mapped files: pages of the page cache, which the kernel may take back.
    pub(crate) files: u64,
}

impl Resident {
    pub(crate) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/smaps_rollup")?;
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, kilobytes);
        let anonymous = field("Anonymous:");
        Ok(Resident { anonymous, files: field("Rss:").saturating_sub(anonymous) })
    }

    pub(crate) fn since(self, before: Resident) -> Resident {
        Resident {
            anonymous: self.anonymous.saturating_sub(before.anonymous),
            files: self.files.saturating_sub(before.files),
        }
    }
}

/// `  123 kB` in bytes.
fn kilobytes(field: &str) -> u64 {
    let digits = field.split_whitespace().next().unwrap_or_default();
    digits.parse::<u64>().unwrap_or(0) * 1024
}

/// Resident bytes of a process and its children, what they share counted once.
pub(crate) fn of_server(pid: u32) -> Result<u64> {
    let mut bytes = 0;
    for pid in processes(pid)? {
        // One that has ended meanwhile holds nothing.
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        bytes += text.lines().find_map(|line| line.strip_prefix("Pss:")).map_or(0, kilobytes);
    }
    Ok(bytes)
}

/// A server's process and its children.
pub(crate) fn processes(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().flat_map(str::parse).chain([pid]).collect())
}

/// Bytes that this process has had written to disks, by the kernel's account: pages count when they
/// become dirty, mapped ones too.
pub(crate) fn bytes_written() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.trim().parse()?)
}

/// Resident bytes of the mapped files below `dir`, by kind: the letters that the name begins with.
pub(crate) fn mapped_by_kind(dir: &Path) -> Result<BTreeMap<String, u64>> {
    let dir = fs::canonicalize(dir)?;
    let text = fs::read_to_string("/proc/self/smaps")?;
    let mut kinds = BTreeMap::new();
    let mut kind = None;
    for line in text.lines() {
        if let Some(path) = line.find('/').map(|at| Path::new(&line[at..])) {
            kind = path.starts_with(&dir).then(|| kind_of(path));
        } else if let (Some(kind), Some(rss)) = (&kind, line.strip_prefix("Rss:")) {
            *kinds.entry(kind.clone()).or_default() += kilobytes(rss);
        } else if line
            .as_bytes()
            .first()
            .is_some_and(|b| b.is_ascii_hexdigit() && line.contains('-'))
        {
            // The head of a map without a file.
            kind = None;
        }
    }
    Ok(kinds)
}

/// Bytes that the files below `dir` take on the disk, by kind.
pub(crate) fn disk_by_kind(dir: &Path) -> Result<BTreeMap<String, u64>> {
    use std::os::unix::fs::MetadataExt;
    let mut kinds = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            // Background work may delete a file between the listing and the look at it.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            } else {
                *kinds.entry(kind_of(&entry.path())).or_default() += meta.blocks() * 512;
            }
        }
    }
    Ok(kinds)
}

fn kind_of(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().take_while(char::is_ascii_alphabetic).collect()
}
