//! How much of mapped files may be changed all the time without the kernel holding up who writes.
//!
//! The kernel bounds the dirty memory of files. Halfway between the amount at which it begins to write
//! back and the one that it never lets pass, whoever writes into a map is made to wait for the disk
//! (`Documentation/admin-guide/sysctl/vm.rst` of the kernel: `dirty_ratio`, `dirty_background_ratio`).

use std::path::Path;

/// Directories of kernels that say nothing have no bound.
const UNBOUNDED: u64 = u64::MAX;
/// The kind of file system that nothing is written back of.
const TMPFS: u32 = 0x0102_1994;

/// Bytes that may be dirty before writers are held up, on the file system of this kind.
pub(super) fn room(kind: u32) -> u64 {
    if kind == TMPFS {
        return UNBOUNDED;
    }
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let setting = |name: &str| number(&read(&format!("/proc/sys/vm/{name}")));
    let Some(available) = available(&read("/proc/meminfo")) else { return UNBOUNDED };
    // In a container the ratios are of what the container may have.
    let available = number(&read("/sys/fs/cgroup/memory.max")).unwrap_or(available).min(available);
    let limit = |bytes: &str, ratio: &str| match setting(bytes) {
        Some(bytes) if bytes > 0 => Some(bytes),
        _ => setting(ratio).map(|percent| available / 100 * percent),
    };
    match (
        limit("dirty_background_bytes", "dirty_background_ratio"),
        limit("dirty_bytes", "dirty_ratio"),
    ) {
        (Some(background), Some(most)) => halfway(background, most),
        _ => UNBOUNDED,
    }
}

/// The kernel takes half of the greater bound where the smaller one is not smaller.
fn halfway(background: u64, most: u64) -> u64 {
    let background = if background < most { background } else { most / 2 };
    background / 2 + most / 2
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Bytes that could be had without swapping, from the text of `/proc/meminfo`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    number(line.trim().strip_suffix("kB")?).map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let text = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(available(text), Some(20_480_000_000));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(number(" 20\n"), Some(20));
        assert_eq!(number("max\n"), None);
        assert_eq!(halfway(2_000, 4_000), 3_000);
        assert_eq!(halfway(9_000, 4_000), 3_000);
    }

    #[test]
    fn files_in_memory_have_no_bound() {
        assert_eq!(room(TMPFS), UNBOUNDED);
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn other_files_have_one_here() {
        assert!((1 << 20..UNBOUNDED).contains(&room(0xef53)));
    }
}
