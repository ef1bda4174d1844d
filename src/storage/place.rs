//! Which kind of file system a directory is on, and whether a store is safe there.

use std::path::Path;

use crate::error::{Error, Result};

/// Several machines may write at once, and what one maps the other does not see.
const NETWORK: &str = "a network file system: maps of it are not kept the same on all machines, and \
                       its locks need not hold between them";
/// A store into a mapped page may meet a full disk, which kills the process.
const COPY_ON_WRITE: &str = "a copy-on-write file system: an overwrite takes new space, so a full \
                             disk would kill the process that stores into a mapped file";
/// It may be either, or anything else.
const UNKNOWN_BELOW: &str = "a file system in user space: what becomes of maps, locks and syncs \
                             below it is not known";

/// Numbers of `statfs` for kinds of file systems on which a store is refused. Overlays (the root of
/// a container) are not among them: new files are on the file system above, which is an ordinary one.
const UNFIT: [(u32, &str, &str); 19] = [
    (0x6969, "NFS", NETWORK),
    (0x517b, "SMB", NETWORK),
    (0xff53_4d42, "CIFS", NETWORK),
    (0xfe53_4d42, "SMB2", NETWORK),
    (0x0102_1997, "9p", NETWORK),
    (0x5346_414f, "AFS", NETWORK),
    (0x6b41_4653, "AFS", NETWORK),
    (0x7375_7245, "Coda", NETWORK),
    (0x00c3_6400, "Ceph", NETWORK),
    (0x0bd0_0bd0, "Lustre", NETWORK),
    (0x0116_1970, "GFS2", NETWORK),
    (0x7461_636f, "OCFS2", NETWORK),
    (0x4750_4653, "GPFS", NETWORK),
    (0x786f_4256, "a shared folder of VirtualBox", NETWORK),
    (0x6573_5546, "FUSE", UNKNOWN_BELOW),
    (0x9123_683e, "btrfs", COPY_ON_WRITE),
    (0x2fc1_2fc1, "ZFS", COPY_ON_WRITE),
    (0xca45_1a4e, "bcachefs", COPY_ON_WRITE),
    (0x3434, "NILFS2", COPY_ON_WRITE),
];

/// Refuses a directory on a file system of kind `number`, unless it is fit for a store.
pub(crate) fn refuse_unfit(dir: &Path, number: u32) -> Result<()> {
    match UNFIT.iter().find(|(unfit, ..)| *unfit == number) {
        None => Ok(()),
        Some((_, name, reason)) => {
            Err(Error::Filesystem { dir: dir.to_owned(), name, reason: reason.to_string() })
        }
    }
}

/// The kind of file system that `dir` is on, or will be on when it is made; 0 where the system does
/// not tell (what is wrong with the directory itself shows when it is opened).
pub(super) fn kind_of(dir: &Path) -> u32 {
    #[cfg(target_os = "linux")]
    for above in dir.ancestors() {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match rustix::fs::statfs(above) {
            // Some kernels extend the sign.
            Ok(found) => return found.f_type as u32,
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => return 0,
        }
    }
    let _ = dir;
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_and_copy_on_write_are_refused_by_name() {
        for (number, name, reason) in UNFIT {
            let text = refuse_unfit(Path::new("state/a"), number).unwrap_err().to_string();
            assert!(text.contains("state/a is on") && text.contains(name), "{text}");
            assert!(text.contains(reason) && text.contains("allow_any_filesystem"), "{text}");
        }
        // ext4, XFS, tmpfs, an overlay, F2FS, and where nothing is known.
        for number in [0xef53, 0x5846_5342, 0x0102_1994, 0x794c_7630, 0xf2f5_2010, 0] {
            refuse_unfit(Path::new("a"), number).unwrap();
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn a_directory_that_is_yet_to_be_made_is_where_its_parent_is() {
        assert_eq!(kind_of(Path::new("/proc/none/of/these")), 0x9fa0);
        assert_eq!(kind_of(Path::new("not-there/either")), kind_of(Path::new(".")));
    }
}
