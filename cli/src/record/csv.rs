//! CSV and TSV: rows of as many fields as the first one; keys are fields without their quotes.
//!
//! Rows are printed as they came, so each row's place in the block is followed while it is read.

use std::ops::Range;

use anyhow::{Error, Result, bail};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{Batch, Fault, KeyAt, Wanted, place, read_time};

/// What some programs put before UTF-8 text.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

pub(crate) struct Csv {
    reader: Reader,
    wanted: Wanted,
    has_header: bool,
    /// The header of the first source, its fields without quotes.
    header: Option<Vec<Vec<u8>>>,
    /// The next row is the source's first.
    first_row: bool,
    /// Fields a row has, known from the first one on.
    width: Option<usize>,
    /// Columns of the key, then of the time.
    columns: Vec<usize>,
    /// The row being read: its fields without quotes, one after the other, and where they end.
    fields: Vec<u8>,
    fields_len: usize,
    ends: Vec<usize>,
    ends_len: usize,
    /// Bytes at the front of the next block that the reader has taken already.
    taken: usize,
    /// The row is read, only its line feed may be missing.
    complete: bool,
}

impl Csv {
    pub(crate) fn new(delimiter: u8, wanted: Wanted, has_header: bool) -> Self {
        // TSV as registered (text/tab-separated-values) has no quotes: a quote is a character.
        let quoting = delimiter != b'\t';
        Csv {
            reader: ReaderBuilder::new().delimiter(delimiter).quoting(quoting).build(),
            wanted,
            has_header,
            header: None,
            first_row: true,
            width: None,
            columns: Vec::new(),
            fields: vec![0; 1024],
            fields_len: 0,
            ends: vec![0; 64],
            ends_len: 0,
            taken: 0,
            complete: false,
        }
    }

    pub(crate) fn start_source(&mut self) {
        self.reader.reset();
        self.first_row = true;
        self.forget_row();
    }

    fn forget_row(&mut self) {
        (self.fields_len, self.ends_len, self.taken) = (0, 0, 0);
        self.complete = false;
    }

    pub(crate) fn split(
        &mut self,
        block: &[u8],
        at_end: bool,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        loop {
            let start = batch.used;
            let Some(end) = self.row_end(block, start, at_end)? else { return Ok(()) };
            let bytes = start + blank_len(&block[start..end], self.first_row)..end;
            if !bytes.is_empty() {
                let at = bytes.start;
                self.row(bytes, block, batch).map_err(|error| Fault::new(at, error))?;
            }
            self.forget_row();
            batch.used = end;
            batch.lines += memchr::memchr_iter(b'\n', &block[start..end]).count() as u64;
        }
    }

    /// Reads the row that starts at `start`; where it ends, its line end included, or `None` when
    /// the block ends before that.
    fn row_end(
        &mut self,
        block: &[u8],
        start: usize,
        at_end: bool,
    ) -> Result<Option<usize>, Fault> {
        if self.first_row && !at_end && block.len() - start < UTF8_MARK.len() {
            // The reader knows the mark only when it sees it whole.
            return Ok(None);
        }
        if !self.complete && !self.read(&block[start + self.taken..]) {
            return if at_end { self.last_row(block, start) } else { Ok(None) };
        }
        let end = start + self.taken;
        if block[end - 1] != b'\r' {
            return Ok(Some(end));
        }
        match block.get(end) {
            Some(b'\n') => Ok(Some(end + 1)),
            // A line feed that belongs to this row may follow in the next block.
            None if !at_end => {
                self.complete = true;
                Ok(None)
            }
            _ => Ok(Some(end)),
        }
    }

    /// The row at the end of the source, without a line end; `None` if there is none.
    fn last_row(&mut self, block: &[u8], start: usize) -> Result<Option<usize>, Fault> {
        let rest = &block[start..];
        if rest.is_empty() {
            return Ok(None);
        }
        if blank_len(rest, self.first_row) < rest.len() {
            let taken = self.taken;
            // A line end that does not end the row stands in quotes.
            if !self.read(b"\n") {
                let at = start + blank_len(rest, self.first_row);
                let error = Error::msg("a quoted field is not closed before the end of the file");
                return Err(Fault::new(at, error));
            }
            self.taken = taken;
        }
        Ok(Some(block.len()))
    }

    /// Feeds `input` to the reader, until a row is complete (true) or the input is used up.
    fn read(&mut self, mut input: &[u8]) -> bool {
        loop {
            if input.is_empty() {
                // To the reader, an empty input would be the end of the file.
                return false;
            }
            let (result, taken, fields_len, ends_len) = self.reader.read_record(
                input,
                &mut self.fields[self.fields_len..],
                &mut self.ends[self.ends_len..],
            );
            input = &input[taken..];
            self.taken += taken;
            self.fields_len += fields_len;
            self.ends_len += ends_len;
            match result {
                ReadRecordResult::Record => return true,
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return false,
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            }
        }
    }

    fn field(&self, column: usize) -> &[u8] {
        let start = if column == 0 { 0 } else { self.ends[column - 1] };
        &self.fields[start..self.ends[column]]
    }

    /// Adds the record of a complete row.
    fn row(&mut self, bytes: Range<usize>, block: &[u8], batch: &mut Batch) -> Result<()> {
        if std::mem::take(&mut self.first_row) && self.start_rows()? {
            if self.header.is_none() {
                self.header = Some((0..self.ends_len).map(|at| self.field(at).to_vec()).collect());
                batch.push(bytes, KeyAt::Header);
            }
            return Ok(());
        }
        self.check_width()?;
        if let (Some(wanted), Some(&column)) = (&self.wanted.time, self.columns.last()) {
            batch.push_time(read_time(self.field(column), wanted)?);
        }
        if self.wanted.keys.is_empty() {
            let len = place(text_len(&block[bytes.clone()]));
            batch.push(bytes, KeyAt::Front { len });
            return Ok(());
        }
        let keys = &self.columns[..self.wanted.keys.len()];
        if let [column] = keys {
            return batch.push_fields(bytes, &[self.field(*column)]);
        }
        let fields: Vec<&[u8]> = keys.iter().map(|&column| self.field(column)).collect();
        batch.push_fields(bytes, &fields)
    }

    /// Learns from a source's first row; true if that row is its header.
    fn start_rows(&mut self) -> Result<bool> {
        if let Some(header) = &self.header {
            let same = header.len() == self.ends_len
                && header.iter().enumerate().all(|(at, name)| name == self.field(at));
            if !same {
                bail!("the header differs from that of the first file");
            }
            return Ok(true);
        }
        if self.width.is_none() {
            self.width = Some(self.ends_len);
            self.columns =
                self.wanted.fields().map(|field| self.column(field)).collect::<Result<_>>()?;
        }
        Ok(self.has_header)
    }

    /// The column of that name, else of that number, counted from 1.
    fn column(&self, field: &str) -> Result<usize> {
        if self.has_header {
            let named = (0..self.ends_len).find(|&at| self.field(at) == field.as_bytes());
            if let Some(column) = named {
                return Ok(column);
            }
        }
        match field.parse::<usize>() {
            Ok(number) if (1..=self.ends_len).contains(&number) => Ok(number - 1),
            Ok(number) if !self.has_header => {
                bail!("there is no column {number}: the first row has {}", self.ends_len)
            }
            _ => {
                let names: Vec<_> =
                    (0..self.ends_len).map(|at| String::from_utf8_lossy(self.field(at))).collect();
                bail!("the header has no column `{field}`; it has: {}", names.join(", "))
            }
        }
    }

    fn check_width(&self) -> Result<()> {
        match self.width {
            Some(width) if width != self.ends_len => {
                let first = if self.has_header { "the header" } else { "the first row" };
                bail!("uneven row: {} fields where {first} has {width}", self.ends_len)
            }
            _ => Ok(()),
        }
    }
}

/// How many bytes at the front of a row are empty lines (or the mark of a UTF-8 file).
fn blank_len(row: &[u8], first_row: bool) -> usize {
    let blank = |row: &[u8]| row.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    match row.strip_prefix(UTF8_MARK) {
        // The mark is printed with the row that follows it.
        Some(rest) if first_row && blank(rest) == rest.len() => row.len(),
        Some(_) if first_row => 0,
        _ => blank(row),
    }
}

/// The length of a row without its line end.
fn text_len(row: &[u8]) -> usize {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    row.strip_suffix(b"\r").unwrap_or(row).len()
}
