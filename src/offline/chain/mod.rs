//! The chain of hashes over what is sealed: `verify` follows it, and looks for a head that was noted before.

use super::{Verification, View};
use crate::error::{Error, Result};
use crate::format::chain::{Change, Hash, Link, UNKNOWN};
use crate::format::header::FileKind;
use crate::format::names;
use crate::storage::Storage;

/// The chain of hashes over the sealed files, as [`verify`](super::verify()) found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainReport {
    /// The hash of the newest link in hexadecimal: note it elsewhere, to ask later whether what was sealed
    /// until now has been edited. `None` before anything was sealed.
    pub head: Option<String>,
    /// Links since the store was created.
    pub links: u64,
    /// Those of them that are kept: a head of an older one is not found any more.
    pub links_kept: u64,
    /// Keys in sealed files of which the chain knows a hash.
    pub keys_chained: u64,
    /// Keys in files that were sealed before the store had a chain.
    pub keys_before: u64,
    /// What is known of a head that was asked for, if it is on the chain.
    pub noted: Option<NotedHead>,
}

/// A head that was noted before, and is on the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotedHead {
    /// The number of the link that it is the hash of, from 1.
    pub link: u64,
    /// Sealed keys that there were then.
    pub keys_then: u64,
    /// Those of them in files that are as they were then.
    pub keys_unchanged: u64,
    /// Links since then that only added what was sealed.
    pub sealed_since: u64,
    /// Links since then by which files were merged.
    pub merged_since: u64,
    /// Links since then by which files went: they had expired, or were set aside.
    pub dropped_since: u64,
    /// Links since then by which a repair changed something.
    pub mended_since: u64,
}

/// A hash in hexadecimal.
pub(super) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A head as it was noted.
pub(super) fn parse(head: &str) -> Result<Hash> {
    let refused = || Error::config("head", format!("\"{head}\" is not 64 hexadecimal digits"));
    let digits = head.trim().as_bytes();
    let mut hash = UNKNOWN;
    if digits.len() != 2 * hash.len() {
        return Err(refused());
    }
    for (byte, two) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let two = str::from_utf8(two).ok().filter(|two| !two.starts_with('+'));
        let value = two.and_then(|two| u8::from_str_radix(two, 16).ok());
        *byte = value.ok_or_else(refused)?;
    }
    Ok(hash)
}

impl View {
    /// Follows the chain from link to link, up to what the manifest names.
    pub(super) fn verify_chain(
        &self,
        noted: Option<&Hash>,
        found: &mut Verification,
    ) -> Result<()> {
        let (manifest, chain) = (&self.manifest, &self.manifest.chain);
        let sealed = manifest.sealed();
        found.chain.head = chain.head().as_ref().map(hex);
        found.chain.links_kept = chain.links.len() as u64;
        found.chain.links = chain.before + found.chain.links_kept;
        let runs = sealed.iter().filter(|file| file.kind == FileKind::Run);
        for run in runs {
            match run.content {
                UNKNOWN => found.chain.keys_before += run.count,
                _ => found.chain.keys_chained += run.count,
            }
        }
        let path = self.storage.path(names::MANIFEST);
        let fault = if chain.is_empty() { None } else { chain.fault(&sealed) };
        self.note(found, fault.map_or(Ok(()), |why| Err(Error::corrupt(&path, why))))?;
        let Some(noted) = noted else { return Ok(()) };
        found.chain.noted = self.noted(noted);
        if found.chain.noted.is_none() {
            let why = format!(
                "its chain does not have the head {}: what was sealed until then was written anew or put \
                 back, or the head is of another store, or older than the last {} links",
                hex(noted),
                chain.links.len()
            );
            self.note(found, Err(Error::corrupt(path, why)))?;
        }
        Ok(())
    }

    fn noted(&self, head: &Hash) -> Option<NotedHead> {
        let (at, link) = self.manifest.chain.find(head)?;
        let (until, since) = self.manifest.chain.links.split_at(at + 1);
        let is_live = |file| self.manifest.runs.iter().any(|run| run.file == file);
        let mut unchanged: Vec<(u64, u64)> = until
            .iter()
            .flat_map(Link::added)
            .filter(|stated| stated.kind == FileKind::Run && stated.content != UNKNOWN)
            .filter(|stated| is_live(stated.file))
            .map(|stated| (stated.file, stated.count))
            .collect();
        unchanged.sort_unstable();
        unchanged.dedup();
        let count = |change| since.iter().filter(|link| link.change == change).count() as u64;
        Some(NotedHead {
            link,
            keys_then: until.last().map_or(0, |link| link.keys),
            keys_unchanged: unchanged.iter().map(|(_, keys)| keys).sum(),
            sealed_since: count(Change::Sealed),
            merged_since: count(Change::Merged),
            dropped_since: count(Change::Dropped),
            mended_since: count(Change::Mended),
        })
    }
}

/// Records of a sealed file that are not those that were sealed.
pub(super) const EDITED: &str =
    "its records are not those that were sealed: the chain has another hash";

#[cfg(all(test, not(loom), not(miri)))]
mod tests;
