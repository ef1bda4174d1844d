//! The bytes on disk: offsets, magic numbers, encoding and decoding. No I/O. `docs/format.md` is
//! the description; the constants here are the truth.

pub(crate) mod chain;
pub(crate) mod chunk;
pub(crate) mod clock;
pub(crate) mod codec;
pub(crate) mod header;
pub(crate) mod kept;
pub(crate) mod log;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod packed;
pub(crate) mod record;
pub(crate) mod transfer;

/// Version of all files of a store; written into each header.
pub(crate) const VERSION: u32 = 1;

/// Unit of allocation, verification and alignment of all mapped files.
pub(crate) const PAGE: usize = 4096;

/// Identity of a store, in the header of each of its files: a file of another store is foreign.
pub(crate) type StoreId = [u8; 16];
