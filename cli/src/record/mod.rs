//! Records: cutting blocks of bytes into lines, JSON values or CSV rows, and finding their keys.

mod csv;
mod json;
mod lines;
#[cfg(test)]
mod tests;

use std::ops::Range;

use anyhow::Error;
use onceonly::{Key, Timestamp};

use crate::args::{Format, MissingKey, TimeFormat};
use crate::decide::Keys;
use crate::recent::Recent;
use crate::timestamp;

/// Records that are decided at once: enough to hide memory latency, few enough to stay in the
/// first-level cache.
pub(crate) const BATCH_LEN: usize = 512;

/// Which fields make the key and the time, and what happens without them.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Names, pointers or numbers; empty for the whole line.
    pub(crate) keys: Vec<String>,
    pub(crate) time: Option<WantedTime>,
    pub(crate) missing: MissingKey,
}

/// The field that holds the event time.
#[derive(Clone, Debug)]
pub(crate) struct WantedTime {
    pub(crate) field: String,
    pub(crate) format: TimeFormat,
    /// A later time is refused here, where its line is known.
    pub(crate) latest: Timestamp,
}

impl Wanted {
    /// All fields, the time last.
    fn fields(&self) -> impl Iterator<Item = &str> {
        let time = self.time.iter().map(|time| time.field.as_str());
        self.keys.iter().map(String::as_str).chain(time)
    }

    /// Whether records have to be looked into.
    fn needs_fields(&self) -> bool {
        !self.keys.is_empty() || self.time.is_some()
    }
}

/// Where a record's key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyAt {
    /// In the block.
    Block(Range<usize>),
    /// In the batch's arena.
    Arena(Range<usize>),
    /// In a record before this one, of a run that forgets nothing.
    Seen,
    /// The record has none.
    Missing,
    /// The record is a header, printed whatever is decided.
    Header,
}

impl KeyAt {
    /// Whether there is a key to be decided.
    fn is_given(&self) -> bool {
        matches!(self, KeyAt::Block(_) | KeyAt::Arena(_))
    }

    /// The key, if there is one to be decided.
    #[inline]
    fn bytes<'a>(&self, block: &'a [u8], arena: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            KeyAt::Block(range) => Some(&block[range.clone()]),
            KeyAt::Arena(range) => Some(&arena[range.clone()]),
            KeyAt::Seen | KeyAt::Missing | KeyAt::Header => None,
        }
    }
}

/// One record of a batch, by its place in the block.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The bytes to print, line end included.
    pub(crate) bytes: Range<usize>,
    pub(crate) key: KeyAt,
    /// Zero without event time.
    pub(crate) time: Timestamp,
}

/// Records that were cut from the front of a block.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    /// Keys that do not stand in the block as they are.
    arena: Vec<u8>,
    /// Scratch of [`Batch::mark_seen`].
    digests: Vec<u128>,
    /// Bytes of the block that were used.
    pub(crate) used: usize,
    /// Line ends in those bytes.
    pub(crate) lines: u64,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.arena.clear();
        (self.used, self.lines) = (0, 0);
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_LEN
    }

    /// Adds a record whose key stands in the block.
    fn push_plain(&mut self, bytes: Range<usize>, key: Range<usize>) {
        self.records.push(Record { bytes, key: KeyAt::Block(key), time: EPOCH });
    }

    /// Adds a record whose key is `fields`, one as it is, several joined.
    fn push_fields(&mut self, bytes: Range<usize>, fields: &[&[u8]], time: Timestamp) {
        let start = self.arena.len();
        match fields {
            [field] => self.arena.extend_from_slice(field),
            _ => self.arena.extend_from_slice(Key::from_fields(fields).as_bytes()),
        }
        let key = KeyAt::Arena(start..self.arena.len());
        self.records.push(Record { bytes, key, time });
    }

    /// Marks the records whose key is among the latest ones.
    pub(crate) fn mark_seen(&mut self, block: &[u8], recent: &mut Recent) {
        self.digests.clear();
        // A record without a key gets a place too, so that the number of digests is known.
        self.digests.extend(
            self.records
                .iter()
                .map(|record| recent.digest(record.key.bytes(block, &self.arena).unwrap_or(b""))),
        );
        for (record, seen) in self.records.iter_mut().zip(recent.check(&self.digests)) {
            if seen && record.key.is_given() {
                record.key = KeyAt::Seen;
            }
        }
    }

    /// The keys of the records that have one, in their order.
    pub(crate) fn keys<'a>(&'a self, block: &'a [u8], event_time: bool) -> Keys<'a> {
        let keyed = self.records.iter().filter_map(|record| {
            record.key.bytes(block, &self.arena).map(|key| (key, record.time))
        });
        if event_time {
            Keys::At(keyed.collect())
        } else {
            Keys::Now(keyed.map(|(key, _)| key).collect())
        }
    }
}

const EPOCH: Timestamp = Timestamp::from_unix_nanos(0);

/// A record that cannot be used; those before it can.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Where in the block the record starts.
    pub(crate) at: usize,
    pub(crate) error: Error,
}

impl Fault {
    fn new(at: usize, error: Error) -> Self {
        Fault { at, error }
    }
}

/// Cuts blocks into records of one format.
pub(crate) enum Splitter {
    Lines(lines::Lines),
    Json(json::Json),
    Csv(Box<csv::Csv>),
}

impl Splitter {
    pub(crate) fn new(format: Format, wanted: Wanted, header: bool, line_end: u8) -> Self {
        match format {
            Format::Lines => Splitter::Lines(lines::Lines::new(line_end)),
            // Without fields to look for, a JSON line is a line.
            Format::Ndjson if !wanted.needs_fields() => Splitter::Lines(lines::Lines::new(b'\n')),
            Format::Ndjson => Splitter::Json(json::Json::new(wanted)),
            Format::Csv => Splitter::Csv(Box::new(csv::Csv::new(b',', wanted, header))),
            Format::Tsv => Splitter::Csv(Box::new(csv::Csv::new(b'\t', wanted, header))),
        }
    }

    /// Prepares for the next source.
    pub(crate) fn start_source(&mut self) {
        match self {
            Splitter::Lines(lines) => lines.start_source(),
            Splitter::Json(json) => json.start_source(),
            Splitter::Csv(csv) => csv.start_source(),
        }
    }

    /// Cuts records from the front of `block` into the empty `batch`, until the batch is full or the
    /// rest is no whole record. `at_end`: nothing follows `block`.
    pub(crate) fn split(
        &mut self,
        block: &[u8],
        at_end: bool,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        match self {
            Splitter::Lines(lines) => {
                lines.split(block, at_end, batch);
                Ok(())
            }
            Splitter::Json(json) => json.split(block, at_end, batch),
            Splitter::Csv(csv) => csv.split(block, at_end, batch),
        }
    }
}

/// Reads the time of a record, and refuses one that the store would refuse.
fn read_time(text: &[u8], wanted: &WantedTime) -> Result<Timestamp, Error> {
    let field = &wanted.field;
    let time = timestamp::parse(text, wanted.format)
        .map_err(|reason| anyhow::anyhow!("time field `{field}`: {reason}"))?;
    if time > wanted.latest {
        let shown = timestamp::show(time);
        anyhow::bail!("time field `{field}`: {shown} is more than 50 years ahead of the clock");
    }
    Ok(time)
}

/// What a missing field means.
fn missing_field(field: &str, missing: MissingKey) -> Result<KeyAt, Error> {
    match missing {
        MissingKey::Error => anyhow::bail!(
            "field `{field}` is missing (--missing-key pass or drop goes on without it)"
        ),
        MissingKey::Pass | MissingKey::Drop => Ok(KeyAt::Missing),
    }
}
