//! Names of keys, and the hash slots of a Cluster.
//!
//! What stands between braces decides the slot. Rows of a space are in 256 groups by the first byte of
//! their digest, so that they are spread over the nodes, and many of a call still share a command. All
//! that one decision needs together (owner, slices, chunks) is in one slot.

use onceonly::authority::{Bucket, Digest};

/// Slots of a Cluster.
pub(crate) const SLOTS: u16 = 16_384;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes the names of keys.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: String,
}

/// The names of one space.
pub(crate) struct SpaceKeys {
    /// `prefix:{space` without what follows.
    stem: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Keys { prefix: escaped(prefix) }
    }

    pub(crate) fn space(&self, space: &str) -> SpaceKeys {
        SpaceKeys { stem: format!("{}:{{{}", self.prefix, escaped(space)) }
    }
}

impl SpaceKeys {
    /// Check, since when it has every row, the servers it was opened on, the end of the forget log.
    pub(crate) fn space(&self) -> String {
        format!("{}}}:space", self.stem)
    }

    pub(crate) fn forget_log(&self) -> String {
        format!("{}}}:forgotten", self.stem)
    }

    pub(crate) fn owner(&self) -> String {
        format!("{}}}:owner", self.stem)
    }

    pub(crate) fn slices(&self) -> String {
        format!("{}}}:slices", self.stem)
    }

    pub(crate) fn bucket(&self, bucket: Bucket) -> String {
        format!("{}}}:chunks:{}:{}", self.stem, bucket.slice, bucket.part)
    }

    /// The slot of everything but rows.
    pub(crate) fn slot(&self) -> u16 {
        slot(self.space().as_bytes())
    }

    pub(crate) fn row(&self, digest: &Digest) -> Vec<u8> {
        let bytes = digest.as_bytes();
        let mut key = Vec::with_capacity(self.stem.len() + 37);
        key.extend_from_slice(self.stem.as_bytes());
        key.push(b':');
        push_hex(&mut key, &bytes[..1]);
        key.extend_from_slice(b"}:");
        push_hex(&mut key, bytes);
        key
    }
}

fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        text.push(HEX[usize::from(byte >> 4)]);
        text.push(HEX[usize::from(byte & 15)]);
    }
}

/// Braces in a name would decide about slots.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('{', "%7B").replace('}', "%7D")
}

/// The slot of a key that has something between braces.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
    let tag = key[open..].split(|byte| *byte == b'}').next().unwrap_or(key);
    crc16(tag) % SLOTS
}

/// The slot of any key: what the first pair of braces has between them decides, if that is something.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let position = |byte: u8, bytes: &[u8]| bytes.iter().position(|b| *b == byte);
    let tag = position(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        position(b'}', rest).filter(|end| *end > 0).map(|end| &rest[..end])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, which the specification of Redis Cluster names.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT` says.
        assert_eq!(slot(b"{user1000}.following"), 3_443);
        assert_eq!(slot(b"x{user1000}.followers"), 3_443);
    }

    #[test]
    fn names_are_as_documented() {
        let keys = Keys::new("onceonly").space("orders");
        let digest = Digest::from_bytes([0x3f; 16]);
        let row = String::from_utf8(keys.row(&digest)).unwrap();
        assert_eq!(row, "onceonly:{orders:3f}:3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f");
        assert_eq!(keys.space(), "onceonly:{orders}:space");
        assert_eq!(keys.bucket(Bucket { slice: 7, part: 3 }), "onceonly:{orders}:chunks:7:3");
    }

    #[test]
    fn no_name_of_a_space_decides_about_slots() {
        for name in ["", "}", "{}", "a}b", "%7D", "{a"] {
            let keys = Keys::new("p{}").space(name);
            let slots = [keys.space(), keys.owner(), keys.bucket(Bucket { slice: 1, part: 2 })]
                .map(|key| slot(key.as_bytes()));
            assert!(slots.iter().all(|slot| *slot == keys.slot()), "{name}");
            let key = keys.space();
            assert_eq!(key.matches(['{', '}']).count(), 2, "{key}");
        }
        assert_ne!(Keys::new("p").space("}").space(), Keys::new("p").space("%7D").space());
    }
}
