//! The chain of hashes over all sealed files: whoever has kept its head elsewhere can tell later whether
//! history up to then was edited.
//!
//! Each change of which sealed files there are is a link. Its hash covers the hash of the link before, what
//! was added with a hash of its records, and the state after it. A link forgets what it added when none of
//! that is left; its hash stays, so heads of before are still found.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::StoreId;
use super::codec::{Reader, Reason, Writer};
use super::header::FileKind;
use crate::digest::Digest;

pub(crate) type Hash = [u8; 32];

/// Of a file that was sealed before its store had a chain.
pub(crate) const UNKNOWN: Hash = [0; 32];

/// Links that are kept, at most; then all files are stated anew, and half of the links go.
const MOST_LINKS: usize = 512;

/// In front of what is hashed, so that no hash of one thing is that of another.
const RECORDS: &[u8; 16] = b"onceonly records";
const STATE: &[u8; 16] = b"onceonly state  ";
const BODY: &[u8; 16] = b"onceonly added  ";
const LINK: &[u8; 16] = b"onceonly link   ";
const ORIGIN: &[u8; 16] = b"onceonly origin ";

/// Hashes the records of a sealed file, in their order, whatever their layout in the file.
pub(crate) struct Records(Sha256);

impl Records {
    pub(crate) fn new(kind: FileKind, slice: u64) -> Self {
        let mut hash = Sha256::new_with_prefix(RECORDS);
        hash.update((kind as u32).to_le_bytes());
        hash.update(slice.to_le_bytes());
        Records(hash)
    }

    /// Adds digests as they stand in a sealed file: upper half, lower half.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds what is kept with a digest.
    pub(crate) fn value(&mut self, digest: Digest, tag: u8, value: &[u8]) {
        self.0.update(digest.to_bytes());
        self.0.update([tag]);
        self.0.update((value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    pub(crate) fn finish(mut self, count: u64) -> Hash {
        self.0.update(count.to_le_bytes());
        self.0.finalize().into()
    }
}

/// A sealed file, as links state it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    pub(crate) kind: FileKind,
    pub(crate) file: u64,
    pub(crate) slice: u64,
    pub(crate) count: u64,
    pub(crate) content: Hash,
}

impl Stated {
    const LEN: usize = 60;

    fn encode(&self) -> [u8; Stated::LEN] {
        let mut bytes = [0; Stated::LEN];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        let words = [self.file, self.slice, self.count];
        for (out, word) in bytes[4..28].chunks_exact_mut(8).zip(words) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        bytes[28..].copy_from_slice(&self.content);
        bytes
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Reason> {
        let kind = match r.u32()? {
            code if code == FileKind::Run as u32 => FileKind::Run,
            code if code == FileKind::Values as u32 => FileKind::Values,
            _ => return Err("its chain names a file of an unknown kind"),
        };
        let (file, slice, count) = (r.u64()?, r.u64()?, r.u64()?);
        Ok(Stated { kind, file, slice, count, content: r.array()? })
    }
}

fn hash_all(what: &[u8; 16], files: &[Stated]) -> Hash {
    let mut hash = Sha256::new_with_prefix(what);
    files.iter().for_each(|file| hash.update(file.encode()));
    hash.finalize().into()
}

/// The hash of a set of files.
fn state_of(files: &[Stated]) -> Hash {
    let mut files = files.to_vec();
    files.sort_unstable_by_key(|file| file.file);
    hash_all(STATE, &files)
}

/// What changed which sealed files there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Change {
    /// Files came.
    Sealed = 1,
    /// Files came instead of others, which they were merged from.
    Merged = 2,
    /// Files went: they had expired, or an open has set them aside.
    Dropped = 3,
    /// A repair has set files aside, or copied what is sound of them; or an open has found other files than
    /// the link before has left.
    Mended = 4,
    /// Nothing: all files are stated, so that older links can go. Also the first link of a store that had
    /// files before it had a chain.
    Restated = 5,
}

impl Change {
    fn from_code(code: u8) -> Result<Self, Reason> {
        const ALL: [Change; 5] =
            [Change::Sealed, Change::Merged, Change::Dropped, Change::Mended, Change::Restated];
        let found = ALL.into_iter().find(|change| *change as u8 == code);
        found.ok_or("its chain has a link of an unknown kind")
    }
}

/// What a link has added.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Kept(Vec<Stated>),
    /// None of it is left.
    Folded(Hash),
}

impl Body {
    fn hash(&self) -> Hash {
        match self {
            Body::Kept(files) => hash_all(BODY, files),
            Body::Folded(hash) => *hash,
        }
    }

    fn files(&self) -> &[Stated] {
        match self {
            Body::Kept(files) => files,
            Body::Folded(_) => &[],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) change: Change,
    body: Body,
    /// Of the files that there are after it.
    state: Hash,
    pub(crate) files: u64,
    /// Digests in them.
    pub(crate) keys: u64,
    pub(crate) hash: Hash,
}

/// Bytes of a link before those of its body.
const LEAST_LINK: usize = 1 + 32 + 8 + 8 + 32 + 4;
/// Stands for the length of a body that was folded.
const FOLDED: u32 = u32::MAX;

impl Link {
    fn hash_after(&self, before: &Hash) -> Hash {
        let mut hash = Sha256::new_with_prefix(LINK);
        hash.update(before);
        hash.update([self.change as u8]);
        hash.update(self.body.hash());
        hash.update(self.state);
        hash.update(self.files.to_le_bytes());
        hash.update(self.keys.to_le_bytes());
        hash.finalize().into()
    }

    /// What it added, as far as that is known.
    pub(crate) fn added(&self) -> &[Stated] {
        self.body.files()
    }

    fn encode(&self, w: &mut Writer) {
        w.u8(self.change as u8);
        w.bytes(&self.state);
        w.u64(self.files);
        w.u64(self.keys);
        w.bytes(&self.hash);
        match &self.body {
            Body::Kept(files) => {
                w.u32(files.len() as u32);
                files.iter().for_each(|file| w.bytes(&file.encode()));
            }
            Body::Folded(hash) => {
                w.u32(FOLDED);
                w.bytes(hash);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Reason> {
        let change = Change::from_code(r.u8()?)?;
        let (state, files, keys, hash) = (r.array()?, r.u64()?, r.u64()?, r.array()?);
        let body = if r.takes(&FOLDED.to_le_bytes()) {
            Body::Folded(r.array()?)
        } else {
            Body::Kept(r.list(Stated::LEN, Stated::decode)?)
        };
        Ok(Link { change, body, state, files, keys, hash })
    }
}

/// The newest links, and where they begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Links before those that are kept.
    pub(crate) before: u64,
    /// The hash of the last of them.
    start: Hash,
    pub(crate) links: Vec<Link>,
}

impl Chain {
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// The hash of the newest link.
    pub(crate) fn head(&self) -> Option<Hash> {
        self.links.last().map(|link| link.hash)
    }

    /// The hashes of the records of all files that the links state.
    pub(crate) fn contents(&self) -> HashMap<u64, Hash> {
        let added = self.links.iter().flat_map(Link::added);
        added.map(|stated| (stated.file, stated.content)).collect()
    }

    /// Adds a link if `live` is not what the last one has left.
    pub(crate) fn follow(&mut self, store: &StoreId, live: &[Stated], mended: bool) {
        let state = state_of(live);
        let before = self.links.last().map_or(0, |link| link.files);
        if self.links.last().map_or(live.is_empty(), |link| link.state == state) {
            return;
        }
        if self.is_empty() {
            self.start = Sha256::new_with_prefix(ORIGIN).chain_update(store).finalize().into();
        }
        let known = self.contents();
        let is_new = |file: &&Stated| !known.contains_key(&file.file);
        let added: Vec<Stated> = live.iter().filter(is_new).cloned().collect();
        let gone = before + added.len() as u64 > live.len() as u64;
        let change = match (added.is_empty(), gone) {
            _ if mended => Change::Mended,
            _ if self.is_empty() && added.iter().any(|file| file.content == UNKNOWN) => {
                Change::Restated
            }
            (true, _) => Change::Dropped,
            (false, true) => Change::Merged,
            (false, false) => Change::Sealed,
        };
        self.push(change, added, state, live);
        self.fold(live);
        if self.links.len() > MOST_LINKS {
            self.push(Change::Restated, live.to_vec(), state, live);
            let start = self.links.len() - MOST_LINKS / 2;
            self.start = self.links[start - 1].hash;
            self.before += start as u64;
            self.links.drain(..start);
        }
    }

    fn push(&mut self, change: Change, added: Vec<Stated>, state: Hash, live: &[Stated]) {
        let runs = live.iter().filter(|file| file.kind == FileKind::Run);
        let mut link = Link {
            change,
            body: Body::Kept(added),
            state,
            files: live.len() as u64,
            keys: runs.map(|run| run.count).sum(),
            hash: UNKNOWN,
        };
        link.hash = link.hash_after(&self.head().unwrap_or(self.start));
        self.links.push(link);
    }

    /// Lets go of what links have added when nothing of it is left.
    fn fold(&mut self, live: &[Stated]) {
        let live: HashSet<u64> = live.iter().map(|file| file.file).collect();
        for link in &mut self.links {
            if !link.added().iter().any(|file| live.contains(&file.file)) {
                link.body = Body::Folded(link.body.hash());
            }
        }
    }

    /// What contradicts itself, if anything, given the files that there are.
    pub(crate) fn fault(&self, live: &[Stated]) -> Option<String> {
        let mut before = self.start;
        for (link, number) in self.links.iter().zip(self.before + 1..) {
            if link.hash_after(&before) != link.hash {
                return Some(format!(
                    "link {number} of its chain does not follow from those before"
                ));
            }
            before = link.hash;
        }
        let contents = self.contents();
        for (link, number) in self.links.iter().zip(self.before + 1..) {
            if link.added().iter().any(|file| contents.get(&file.file) != Some(&file.content)) {
                return Some(format!(
                    "link {number} of its chain states a file otherwise than another"
                ));
            }
        }
        let stands = self.links.last().is_none_or(|link| link.state == state_of(live));
        (!stands).then(|| {
            "its sealed files are not those that the last link of its chain has left".into()
        })
    }

    /// The place among the kept links of the one with this hash, and its number.
    pub(crate) fn find(&self, hash: &Hash) -> Option<(usize, u64)> {
        let at = self.links.iter().position(|link| link.hash == *hash)?;
        Some((at, self.before + 1 + at as u64))
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u64(self.before);
        w.bytes(&self.start);
        w.u32(self.links.len() as u32);
        self.links.iter().for_each(|link| link.encode(w));
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Reason> {
        Ok(Chain { before: r.u64()?, start: r.array()?, links: r.list(LEAST_LINK, Link::decode)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [7; 16];

    fn file(number: u64, count: u64) -> Stated {
        let content = Records::new(FileKind::Run, number).finish(count);
        Stated { kind: FileKind::Run, file: number, slice: 1, count, content }
    }

    fn coded(chain: &Chain) -> Chain {
        let mut w = Writer::new(b"magic_no");
        chain.encode(&mut w);
        let bytes = w.finish();
        let mut r = Reader::verified(&bytes, b"magic_no").unwrap();
        let decoded = Chain::decode(&mut r).unwrap();
        r.finish().unwrap();
        decoded
    }

    #[test]
    fn links_follow_what_is_sealed_merged_and_dropped() {
        let mut chain = Chain::default();
        chain.follow(&STORE, &[], false);
        assert!(chain.is_empty());
        let mut heads = Vec::new();
        let (a, b, c) = (file(1, 10), file(2, 20), file(3, 30));
        let steps: [(&[Stated], Change); 4] = [
            (std::slice::from_ref(&a), Change::Sealed),
            (&[a.clone(), b.clone()], Change::Sealed),
            (std::slice::from_ref(&c), Change::Merged),
            (&[], Change::Dropped),
        ];
        for (live, change) in steps {
            chain.follow(&STORE, live, false);
            chain.follow(&STORE, live, false);
            heads.push(chain.head().unwrap());
            let last = chain.links.last().unwrap();
            assert_eq!((last.change, last.files), (change, live.len() as u64));
            assert_eq!(last.keys, live.iter().map(|file| file.count).sum::<u64>());
            assert_eq!(chain.fault(live), None);
            assert_eq!(coded(&chain), chain);
        }
        for (number, head) in (1..).zip(&heads) {
            assert_eq!(chain.find(head), Some((number as usize - 1, number)));
        }
        assert!(chain.links.iter().all(|link| link.added().is_empty()));
        // The same files in another store are another history.
        let mut other = Chain::default();
        other.follow(&[8; 16], &[a], false);
        assert_ne!(other.head(), Some(heads[0]));
    }

    #[test]
    fn every_change_of_a_link_or_of_a_file_is_noticed() {
        let mut chain = Chain::default();
        let live = [file(1, 10), file(2, 20)];
        chain.follow(&STORE, &live[..1], false);
        chain.follow(&STORE, &live, false);
        let edits: [fn(&mut Chain); 6] = [
            |chain| chain.start[0] ^= 1,
            |chain| chain.links[0].change = Change::Mended,
            |chain| chain.links[0].keys += 1,
            |chain| chain.links[1].state[5] ^= 1,
            |chain| chain.links[0].hash[3] ^= 1,
            |chain| match &mut chain.links[0].body {
                Body::Kept(files) => files[0].content[0] ^= 1,
                Body::Folded(hash) => hash[0] ^= 1,
            },
        ];
        for (at, edit) in edits.into_iter().enumerate() {
            let mut edited = chain.clone();
            edit(&mut edited);
            assert!(edited.fault(&live).is_some(), "edit {at}");
        }
        assert!(chain.fault(&live[..1]).is_some(), "a file is missing");
        let mut swapped = live.clone();
        (swapped[0].count, swapped[1].count) = (20, 10);
        assert!(chain.fault(&swapped).is_some(), "files are swapped");
    }

    #[test]
    fn old_links_go_and_what_is_live_stays_stated() {
        let (mut chain, lasting) = (Chain::default(), file(1, 10));
        let mut heads = Vec::new();
        for number in 2..3_000 {
            let live = [lasting.clone(), file(number, number)];
            chain.follow(&STORE, &live, false);
            heads.push(chain.head().unwrap());
            assert_eq!(chain.fault(&live), None, "file {number}");
            assert!(chain.links.len() <= MOST_LINKS);
            assert_eq!(chain.contents().get(&1), Some(&lasting.content));
        }
        let kept = heads.iter().rev().take_while(|head| chain.find(head).is_some()).count();
        assert!(kept >= MOST_LINKS / 2 - 1, "{kept}");
        assert_eq!(coded(&chain), chain);
    }

    #[test]
    fn what_was_sealed_before_the_chain_is_said_to_be_so() {
        let mut chain = Chain::default();
        let old = Stated { content: UNKNOWN, ..file(1, 10) };
        chain.follow(&STORE, std::slice::from_ref(&old), false);
        chain.follow(&STORE, &[old.clone(), file(2, 5)], false);
        let changes: Vec<_> = chain.links.iter().map(|link| link.change).collect();
        assert_eq!(changes, [Change::Restated, Change::Sealed]);
        chain.follow(&STORE, &[file(2, 5)], true);
        assert_eq!(chain.links[2].change, Change::Mended);
    }
}
