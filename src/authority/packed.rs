//! The packed form: what an authority keeps for `Exclusive`.
//!
//! One row a key would cost a server microseconds and a hundred bytes. An owner's digests go there in
//! chunks of many instead, which nobody changes; they are found again by reading a bucket.

use std::time::Duration;

use super::{Server, Token};
use crate::time::Timestamp;

/// Asks for the ownership of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquire {
    /// Names the new owner.
    pub holder: Token,
    /// An owner that is known to be dead: its lease need not be waited for.
    pub previous: Option<Token>,
    /// How long nobody else may have the space. The owner counts it from before it asks.
    pub lease: Duration,
    /// Written into the owner record when the space has none yet.
    pub initial: Progress,
}

/// How far an owner has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of the last chunk that was written, 0 if none.
    pub position: u64,
    /// The chunks have every key that was observed from here …
    pub complete_since: Timestamp,
    /// … to here, in the server's time.
    pub complete_through: Timestamp,
    /// How digests are put into buckets; a matter of the engine.
    pub layout: u32,
}

/// The answer to [`super::Authority::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The server.
    pub server: Server,
    /// One higher than any before; 1 for the first owner.
    pub epoch: u64,
    /// The owner before; `None` when the space has had none. The answer to a repetition is the same.
    pub last: Option<Token>,
    /// The owner before has released the space: it had written all it had.
    pub released: bool,
    /// How far the owner before had come; [`Acquire::initial`] if there was none.
    pub progress: Progress,
}

/// What an owner writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append<'a> {
    /// The space.
    pub space: &'a str,
    /// The epoch of the owner.
    pub epoch: u64,
    /// Who the owner is: a server that was emptied counts epochs anew, so two owners may have the same.
    pub holder: Token,
    /// The lease begins anew, with this length; none at all gives the space up.
    pub lease: Duration,
    /// Replaces that of the owner record.
    pub progress: Progress,
    /// At most 4 MiB of data together.
    pub chunks: &'a [Chunk],
}

/// Some digests of one bucket of one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it is found.
    pub bucket: Bucket,
    /// Its number: no other chunk of the space has it.
    pub number: u64,
    /// When nobody asks for it any more, in the server's time. The same for all chunks of a slice, but
    /// for a second or two. Until then it is there; after that it may be deleted, at any time.
    pub expires: Timestamp,
    /// Bytes that mean nothing to an authority; at most 1 MiB.
    pub data: Vec<u8>,
}

/// A part of a slice: the place where the chunks of some digests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// The slice: its first instant in the server's time, in milliseconds since the Unix epoch.
    pub slice: u64,
    /// The part of the slice, below 65,536.
    pub part: u32,
}

/// The answer to one [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The server.
    pub server: Server,
    /// The position of the owner record before. One that is smaller than the owner remembers tells it
    /// that the server has lost something.
    pub before: u64,
}

/// A slice that has chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceInfo {
    /// Which slice: see [`Bucket::slice`].
    pub slice: u64,
    /// When the last of its chunks is over.
    pub expires: Timestamp,
    /// The bytes of data of its chunks, about. 0 if the server cannot tell cheaply.
    pub bytes: u64,
}

/// A chunk that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// Its number.
    pub number: u64,
    /// Its data.
    pub data: Vec<u8>,
}
