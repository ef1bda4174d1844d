//! Live keys, and what is kept with them, from one store to another: as a stream that knows nothing of
//! shards, files or slices of the store that reads it.

mod export;
mod import;

use std::io::{Read, Write};
use std::path::Path;

use super::Engine;
use crate::error::{Error, Result};
use crate::format::transfer::{self, BLOCK_HEAD, Block, HEAD, Head, Kind};

/// How errors name it.
const STREAM: &str = "the exported stream";

/// Writes blocks.
struct Out<'a> {
    to: &'a mut dyn Write,
    head: [u8; HEAD],
    blocks: u64,
    bytes: u64,
}

impl<'a> Out<'a> {
    fn begin(to: &'a mut dyn Write, head: &Head) -> Result<Self> {
        let mut bytes = [0; HEAD];
        bytes.copy_from_slice(&head.encode());
        let mut out = Out { to, head: bytes, blocks: 0, bytes: 0 };
        out.write(&bytes)?;
        Ok(out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(|e| Error::io("writing", Path::new(STREAM), e))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn block(&mut self, kind: Kind, content: &[u8]) -> Result<()> {
        let block = transfer::block_head(kind, content.len());
        let check = transfer::block_check(self.blocks, &self.head, &block, content);
        self.write(&block)?;
        self.write(content)?;
        self.write(&check.to_le_bytes())?;
        self.blocks += 1;
        Ok(())
    }
}

/// Reads blocks, and nothing behind the last one.
struct Source<'a> {
    from: &'a mut dyn Read,
    bytes: [u8; HEAD],
    head: Head,
    blocks: u64,
    offset: u64,
    content: Vec<u8>,
}

impl<'a> Source<'a> {
    fn begin(from: &'a mut dyn Read) -> Result<Self> {
        let mut bytes = [0; HEAD];
        from.read_exact(&mut bytes).map_err(|e| read_error(e, "its head is cut short"))?;
        let head = head_of(&bytes)?;
        Ok(Source { from, bytes, head, blocks: 0, offset: HEAD as u64, content: Vec::new() })
    }

    fn damaged(&self, why: &str) -> Error {
        let (block, at) = (self.blocks + 1, self.offset);
        Error::corrupt(STREAM, format!("block {block}, at byte {at}: {why}"))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        let cut_short = self.damaged("the stream ends before its end").to_string();
        self.from.read_exact(buffer).map_err(|e| read_error(e, &cut_short))
    }

    fn next(&mut self) -> Result<Block> {
        let mut block = [0; BLOCK_HEAD];
        self.read(&mut block)?;
        let (kind, len) = transfer::decode_block_head(block).map_err(|why| self.damaged(why))?;
        let mut content = std::mem::take(&mut self.content);
        content.resize(len, 0);
        self.read(&mut content)?;
        let mut check = [0; 8];
        self.read(&mut check)?;
        if transfer::block_check(self.blocks, &self.bytes, &block, &content).to_le_bytes() != check
        {
            return Err(self.damaged("it does not match its checksum"));
        }
        let decoded = Block::decode(kind, &content).map_err(|why| self.damaged(why))?;
        self.blocks += 1;
        self.offset += (BLOCK_HEAD + len + check.len()) as u64;
        self.content = content;
        Ok(decoded)
    }
}

fn read_error(error: std::io::Error, cut_short: &str) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corrupt(STREAM, cut_short),
        _ => Error::io("reading", Path::new(STREAM), error),
    }
}

/// What the first bytes of a stream say.
pub(crate) fn head_of(bytes: &[u8; HEAD]) -> Result<Head> {
    let damaged = |why: &str| Error::corrupt(STREAM, format!("its head: {why}"));
    let found = Head::version(bytes).map_err(damaged)?;
    if found != transfer::VERSION {
        return Err(Error::Version { found, supported: transfer::VERSION });
    }
    Head::decode(bytes).map_err(damaged)
}

impl Engine {
    /// What an authority decides does not come or go by a stream.
    fn refuse_transfer(&self) -> Result<()> {
        self.refuse_forked()?;
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if self.owned.get().is_some() || self.shared().is_some() {
            let reason =
                "has what this store was told: open another store with it instead of moving keys";
            return Err(Error::config("authority", reason));
        }
        Ok(())
    }
}
