//! Composite keys.

/// A key made of several fields, each with its length before it, so that `("a", "bc")` and
/// `("ab", "c")` are different keys.
///
/// ```
/// use onceonly::Key;
/// let one = Key::from_fields(&[b"tenant-7", b"order-1001"]);
/// let two = Key::from_fields(&[b"tenant-7o", b"rder-1001"]);
/// assert_ne!(one, two);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// Joins `fields`: for each its length as eight little-endian bytes, then its bytes.
    #[must_use]
    pub fn from_fields(fields: &[&[u8]]) -> Self {
        let mut bytes = Vec::with_capacity(fields.iter().map(|f| f.len() + 8).sum());
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
            bytes.extend_from_slice(field);
        }
        Key(bytes)
    }

    /// The joined bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
