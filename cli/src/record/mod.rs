//! Records: cutting blocks of bytes into lines, JSON values or CSV rows, and finding their keys.

mod csv;
mod json;
mod lines;
#[cfg(test)]
mod tests;

use std::ops::Range;

use anyhow::{Error, bail};
use onceonly::{Key, Timestamp};

use crate::args::{Format, MissingKey, TimeFormat};
use crate::decide::Keys;
use crate::recent::{Digester, Recent};
use crate::timestamp;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyAt {
    /// The first so many bytes of the record.
    Front { len: u32 },
    /// In the batch's arena.
    Arena { start: u32, len: u32 },
    /// In a record before this one, of a run that forgets nothing.
    Seen,
    /// The record has none.
    Missing,
    /// The record is a header, printed whatever is decided.
    Header,
}

/// One record of a batch, by its place in the block; small, because there are many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    start: u32,
    end: u32,
    pub(crate) key: KeyAt,
}

impl Record {
    /// The bytes to print, line end included.
    #[inline]
    pub(crate) fn bytes(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The key, if there is one to be decided.
    #[inline]
    fn key<'a>(&self, block: &'a [u8], arena: &'a [u8]) -> Option<&'a [u8]> {
        match self.key {
            KeyAt::Front { len } => Some(&block[self.start as usize..][..len as usize]),
            KeyAt::Arena { start, len } => Some(&arena[start as usize..][..len as usize]),
            KeyAt::Seen | KeyAt::Missing | KeyAt::Header => None,
        }
    }
}

/// A place in a block; see `reader::MAX_BLOCK_LEN`.
#[inline]
fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a block is shorter than 4 GiB")
}

/// Records that were cut from the front of a block.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    /// Of each record in event time, else none.
    times: Vec<Timestamp>,
    /// Keys that do not stand in the block as they are.
    arena: Vec<u8>,
    /// Of each record, once they were asked for.
    digests: Vec<u128>,
    /// Bytes of the block that were used.
    pub(crate) used: usize,
    /// Line ends in those bytes.
    pub(crate) lines: u64,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.times.clear();
        self.arena.clear();
        self.digests.clear();
        (self.used, self.lines) = (0, 0);
    }

    #[inline]
    fn push(&mut self, bytes: Range<usize>, key: KeyAt) {
        self.records.push(Record { start: place(bytes.start), end: place(bytes.end), key });
    }

    /// Sets the time of the record that is added next.
    fn push_time(&mut self, time: Timestamp) {
        // Records without a time may have come before.
        self.times.resize(self.records.len(), EPOCH);
        self.times.push(time);
    }

    /// Adds a record whose key is `fields`, one as it is, several joined.
    fn push_fields(&mut self, bytes: Range<usize>, fields: &[&[u8]]) -> Result<(), Error> {
        let start = self.arena.len();
        match fields {
            [field] => self.arena.extend_from_slice(field),
            _ => self.arena.extend_from_slice(Key::from_fields(fields).as_bytes()),
        }
        let len = self.arena.len() - start;
        let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(len)) else {
            bail!("the key is longer than 4 GiB");
        };
        self.push(bytes, KeyAt::Arena { start, len });
        Ok(())
    }

    /// Makes the digests that [`Batch::mark_seen`] looks at.
    pub(crate) fn digest_keys(&mut self, block: &[u8], digester: Digester) {
        let keys = self.records.iter().map(|record| record.key(block, &self.arena));
        self.digests.extend(keys.map(|key| digester.digest(key)));
    }

    /// Marks those of the `numbered` records whose key is among the latest ones.
    pub(crate) fn mark_seen(&mut self, numbered: Range<usize>, recent: &mut Recent) {
        let digests = &self.digests[numbered.clone()];
        for (record, seen) in self.records[numbered].iter_mut().zip(recent.check(digests)) {
            if seen {
                record.key = KeyAt::Seen;
            }
        }
    }

    /// The keys of those of the `numbered` records that have one, in their order.
    pub(crate) fn keys<'a>(
        &'a self,
        numbered: Range<usize>,
        block: &'a [u8],
        event_time: bool,
    ) -> Keys<'a> {
        let records = &self.records[numbered.clone()];
        let keys = records.iter().map(|record| record.key(block, &self.arena));
        if event_time {
            let times = numbered.map(|number| self.times.get(number).copied().unwrap_or(EPOCH));
            Keys::At(keys.zip(times).filter_map(|(key, time)| Some((key?, time))).collect())
        } else {
            Keys::Now(keys.flatten().collect())
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

    /// Cuts all whole records from the front of `block` into the empty `batch`. If there is none, the
    /// next call brings the same block with more bytes. `at_end`: nothing follows `block`.
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
