//! Little-endian fields with a checksum at the end, for the small structures.

use crate::digest::checksum;

/// Appends fields to a buffer.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(magic: &[u8; 8]) -> Self {
        Writer(magic.to_vec())
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Adds the checksum of all that was written.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.0);
        self.0.extend_from_slice(&sum.to_le_bytes());
        self.0
    }
}

/// Reads fields back; every read is bounded.
pub(crate) struct Reader<'a>(&'a [u8]);

/// Why bytes cannot be what they should be.
pub(crate) type Reason = &'static str;

pub(crate) const CUT_SHORT: Reason = "it is cut short";

impl<'a> Reader<'a> {
    /// Checks the magic and the checksum in the last eight bytes, and reads what is between.
    pub(crate) fn verified(bytes: &'a [u8], magic: &[u8; 8]) -> Result<Self, Reason> {
        let content = bytes.strip_prefix(magic).ok_or("it does not begin with its magic number")?;
        let (content, sum) = content.split_last_chunk::<8>().ok_or(CUT_SHORT)?;
        let covered = &bytes[..bytes.len() - 8];
        if checksum(covered) != u64::from_le_bytes(*sum) {
            return Err("its checksum does not match");
        }
        Ok(Reader(content))
    }

    /// Bytes that were verified before.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// All that is left, item by item.
    pub(crate) fn rest<T>(
        mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Reason>,
    ) -> Result<Vec<T>, Reason> {
        let mut items = Vec::new();
        while !self.0.is_empty() {
            items.push(item(&mut self)?);
        }
        Ok(items)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], Reason> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Reason> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Reason> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Reason> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Reason> {
        self.array().map(i64::from_le_bytes)
    }

    /// A list with its length before it. The length is bounded by the bytes that are there.
    pub(crate) fn list<T>(
        &mut self,
        least_len: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, Reason>,
    ) -> Result<Vec<T>, Reason> {
        let count = self.u32()? as usize;
        if count > self.0.len() / least_len {
            return Err("a list is longer than the file");
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// Takes `mark` away, if that comes next.
    pub(crate) fn takes(&mut self, mark: &[u8]) -> bool {
        let rest = self.0.strip_prefix(mark);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn finish(self) -> Result<(), Reason> {
        if self.0.is_empty() { Ok(()) } else { Err("it has bytes after its end") }
    }
}
