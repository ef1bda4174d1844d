//! What an authority is asked with: digests, tokens, the server's time.

use std::fmt;

use crate::time::Timestamp;

/// 128 bits of a key, under the secret of the store and the name of the scope.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 16]);

/// Names who did something: one operation, one claim, one owner. Every token is used for one such
/// thing and never again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token([u8; 16]);

impl Digest {
    /// A digest of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Digest(bytes)
    }

    /// Its bytes. Digests are uniform: any bits of them make a good bucket or slot.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<crate::digest::Digest> for Digest {
    /// The order is kept.
    fn from(digest: crate::digest::Digest) -> Self {
        Digest(digest.to_bytes())
    }
}

impl Token {
    /// A token of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Token(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// 32 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

/// What each answer says of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its clock, at some moment between the request and the answer.
    pub time: Timestamp,
    /// Another number whenever the server may have lost something that it had acknowledged: after a
    /// restart, a failover, a restore. The same number for ever where a server loses nothing. The
    /// engine then trusts nothing that it knows of the server from before.
    pub incarnation: u64,
}

/// The answer to [`super::Authority::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The server.
    pub server: Server,
    /// The check of the space: the one that was given, if the space was new.
    pub check: u64,
    /// The number of the newest entry of the forget log, 0 if there is none.
    pub forgotten: u64,
    /// The space has every row since then, in the server's time: when it was first opened, or later
    /// when the server may have lost rows. Whenever [`Server::incarnation`] changes for that reason,
    /// this moves to then: a server that restarts empty makes the space anew.
    pub complete_since: Timestamp,
}
