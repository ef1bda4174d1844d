//! Headers: the store's own, and the page that names each numbered file.

use super::codec::{Reader, Reason, Writer};
use super::{PAGE, StoreId, VERSION};
use crate::digest::{DigestKind, SECRET_LEN};

const STORE_MAGIC: &[u8; 8] = b"ONCEONLY";
const FILE_MAGIC: &[u8; 8] = b"ONCEFILE";

/// What can never change in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreHeader {
    pub(crate) version: u32,
    /// Oldest release, by format version, that may write this store.
    pub(crate) min_version: u32,
    pub(crate) store: StoreId,
    pub(crate) digest: DigestKind,
    pub(crate) event_time: bool,
    pub(crate) secret: [u8; SECRET_LEN],
    pub(crate) created_ns: i64,
}

/// Why a header was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged(Reason),
    Newer(u32),
}

impl From<Reason> for HeaderError {
    fn from(reason: Reason) -> Self {
        HeaderError::Damaged(reason)
    }
}

impl StoreHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(STORE_MAGIC);
        w.u32(self.version);
        w.u32(self.min_version);
        w.bytes(&self.store);
        w.u8(self.digest.code());
        w.u8(u8::from(self.event_time));
        w.bytes(&[0; 6]);
        w.bytes(&self.secret);
        w.i64(self.created_ns);
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut r = Reader::verified(bytes, STORE_MAGIC)?;
        let (version, min_version) = (r.u32()?, r.u32()?);
        if min_version > VERSION {
            return Err(HeaderError::Newer(min_version));
        }
        let header = StoreHeader {
            version,
            min_version,
            store: r.array()?,
            digest: DigestKind::from_code(r.u8()?).ok_or("it names an unknown digest")?,
            event_time: match r.u8()? {
                0 => false,
                1 => true,
                _ => return Err("its time mode is unknown".into()),
            },
            secret: {
                r.array::<6>()?;
                r.array()?
            },
            created_ns: r.i64()?,
        };
        r.finish()?;
        Ok(header)
    }
}

/// The kinds of numbered files, as they stand in the files themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum FileKind {
    Journal = 1,
    Run = 2,
    Filter = 3,
    Log = 4,
    Values = 5,
}

/// Identity and geometry of a numbered file: one page, written once. The meaning of `fields` is the
/// file kind's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    pub(crate) store: StoreId,
    pub(crate) id: u64,
    pub(crate) fields: [u64; 6],
}

/// Encoded length of a file header.
pub(crate) const FILE_HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 + 48 + 8;
const _: () = assert!(FILE_HEADER_LEN <= PAGE);

impl FileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(FILE_MAGIC);
        w.u32(VERSION);
        w.u32(self.kind as u32);
        w.bytes(&self.store);
        w.u64(self.id);
        for field in self.fields {
            w.u64(field);
        }
        w.finish()
    }

    /// Decodes and checks that it is the header of this very file.
    pub(crate) fn decode(
        bytes: &[u8],
        kind: FileKind,
        store: StoreId,
        id: u64,
    ) -> Result<[u64; 6], Reason> {
        let mut r = Reader::verified(bytes, FILE_MAGIC)?;
        if r.u32()? != VERSION {
            return Err("it has another format version");
        }
        if r.u32()? != kind as u32 {
            return Err("it is a file of another kind");
        }
        if r.array::<16>()? != store {
            return Err("it belongs to another store");
        }
        if r.u64()? != id {
            return Err("it carries the number of another file");
        }
        let mut fields = [0; 6];
        for field in &mut fields {
            *field = r.u64()?;
        }
        r.finish()?;
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_of_a_header_is_noticed() {
        let header = StoreHeader {
            version: VERSION,
            min_version: 1,
            store: [3; 16],
            digest: DigestKind::SipHash13,
            event_time: true,
            secret: [9; 32],
            created_ns: -5,
        };
        let bytes = header.encode();
        assert_eq!(StoreHeader::decode(&bytes), Ok(header));
        let file = FileHeader { kind: FileKind::Run, store: [3; 16], id: 7, fields: [1; 6] };
        let file_bytes = file.encode();
        assert_eq!(file_bytes.len(), FILE_HEADER_LEN);
        assert_eq!(FileHeader::decode(&file_bytes, FileKind::Run, [3; 16], 7), Ok([1; 6]));
        assert!(FileHeader::decode(&file_bytes, FileKind::Run, [3; 16], 8).is_err());
        assert!(FileHeader::decode(&file_bytes, FileKind::Filter, [3; 16], 7).is_err());
        assert!(FileHeader::decode(&file_bytes, FileKind::Run, [4; 16], 7).is_err());
        for at in 0..bytes.len().max(file_bytes.len()) {
            let flip = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x10;
                }
                bytes
            };
            assert!(at >= bytes.len() || StoreHeader::decode(&flip(&bytes)).is_err());
            let file = flip(&file_bytes);
            assert!(
                at >= file.len() || FileHeader::decode(&file, FileKind::Run, [3; 16], 7).is_err()
            );
        }
    }

    #[test]
    fn a_store_of_a_newer_release_is_told_from_a_damaged_one() {
        let header = StoreHeader {
            version: 9,
            min_version: 9,
            store: [0; 16],
            digest: DigestKind::Xxh3,
            event_time: false,
            secret: [0; 32],
            created_ns: 0,
        };
        assert_eq!(StoreHeader::decode(&header.encode()), Err(HeaderError::Newer(9)));
    }
}
