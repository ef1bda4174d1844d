//! The manifest: which files are live, the geometry of the window, and what is known to be complete.

use super::StoreId;
use super::chain::{Chain, Hash, Stated, UNKNOWN};
use super::clock::Anchor;
use super::codec::{Reader, Reason, Writer};
use super::header::FileKind;

const MAGIC: &[u8; 8] = b"ONCEMANI";
/// Stands before the list of values files, which is not there if there are none. No text is so long.
const VALUES: u32 = u32::MAX;
/// Stands before the chain, which is not there before anything was sealed.
const CHAIN: u32 = u32::MAX - 1;

/// The settings of the last open that another open may take over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Geometry {
    pub(crate) window_ns: i64,
    pub(crate) slices: u32,
    pub(crate) slice_ns: i64,
    pub(crate) shard_bits: u32,
    pub(crate) expected_keys: u64,
    pub(crate) false_positive_rate: f64,
    pub(crate) max_keys: u64,
    pub(crate) lease_ns: i64,
    pub(crate) max_event_lead_ns: i64,
    pub(crate) refresh_on_duplicate: bool,
}

/// A stretch of time that was cut into slices of one length. Slice `first + i` spans
/// `[start + i * slice, start + (i + 1) * slice)`, cut off at `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Era {
    pub(crate) first: u64,
    pub(crate) start_ns: i64,
    pub(crate) slice_ns: i64,
    /// `i64::MAX` for the era that goes on.
    pub(crate) end_ns: i64,
}

/// A sealed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunEntry {
    pub(crate) file: u64,
    pub(crate) slice: u64,
    pub(crate) keys: u64,
    /// The hash of its records, which is written in the chain alone.
    pub(crate) content: Hash,
}

/// A file of what is kept with the marks of one slice. Those of a slice stand in the order of their age:
/// a later one overrides those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValuesEntry {
    pub(crate) file: u64,
    pub(crate) slice: u64,
    pub(crate) entries: u64,
    /// As that of a sealed file.
    pub(crate) content: Hash,
}

/// Keys of a slice that a newer slice holds too, because they were refreshed: they count there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refreshed {
    pub(crate) slice: u64,
    pub(crate) keys: u64,
}

/// A filter file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilterEntry {
    pub(crate) file: u64,
    pub(crate) shard: u32,
}

/// A log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) file: u64,
    /// Where it ends; [`LogEntry::IN_USE`] while it is written.
    pub(crate) end: u64,
}

impl LogEntry {
    pub(crate) const IN_USE: u64 = u64::MAX;
}

/// Part of a slice that is known to be lost: no observation in `[from, to)` is vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from_ns: i64,
    pub(crate) to_ns: i64,
    pub(crate) reason: String,
}

/// What the only writer of a space has to know when it is opened again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The name that it goes by at the authority. While it is opened there is another one before that,
    /// under which it asks for the space: an open that did not come to its end left it here.
    pub(crate) holders: Vec<[u8; 16]>,
    /// The incarnation of the server that has what was written to it.
    pub(crate) incarnation: u64,
    /// Until then there may be keys that the authority alone knows; the least value for none.
    pub(crate) foreign_until_ns: i64,
    /// Sealed files that the authority may lack keys of.
    pub(crate) unsent: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    /// Counts the manifests of this store.
    pub(crate) sequence: u64,
    pub(crate) geometry: Geometry,
    /// Number of the next file; all files with a lower number were published or are leftovers.
    pub(crate) next_file: u64,
    /// How often the store was opened: the upper part of every fencing token.
    pub(crate) opens: u64,
    /// Nothing before this instant is vouched for.
    pub(crate) complete_since_ns: i64,
    pub(crate) holes: Vec<Hole>,
    pub(crate) eras: Vec<Era>,
    pub(crate) journals: Vec<u64>,
    pub(crate) runs: Vec<RunEntry>,
    /// Of sealed parts; what is not sealed is counted again when it is read back.
    pub(crate) refreshed: Vec<Refreshed>,
    pub(crate) filters: Vec<FilterEntry>,
    /// In the order in which they were written.
    pub(crate) logs: Vec<LogEntry>,
    /// Every observation acknowledged before this instant of the store's time survives power loss.
    pub(crate) covered_ns: i64,
    /// What the logs hold of the unsealed records, since the last recovery was complete: the code of
    /// a level, zero if nothing.
    pub(crate) level: u64,
    /// Where time stood when a part was last sealed, or the store opened or closed.
    pub(crate) anchor: Anchor,
    /// Boot of the machine, and place of the files, at the last open: mapped state is trusted
    /// unverified only when both are the same.
    pub(crate) boot_id: [u8; 16],
    pub(crate) place: [u8; 24],
    /// The stamp of the file that this was read from, as written in it: another than the file's own
    /// says that it was restored. Zero when it is not known.
    pub(crate) stamp: u64,
    /// Time of the last clean close, `i64::MIN` while open.
    pub(crate) closed_ns: i64,
    /// What went wrong at the last close, empty if nothing.
    pub(crate) close_error: String,
    pub(crate) values: Vec<ValuesEntry>,
    /// The hashes of what is sealed, and of what was.
    pub(crate) chain: Chain,
    /// The space of an authority that the store shares, empty if none: what it holds is a part of that.
    pub(crate) space: String,
    /// The store is the only writer of its space; `None` for one that shares it.
    pub(crate) owner: Option<Owner>,
}

impl Manifest {
    /// For a file with this stamp.
    pub(crate) fn encode(&self, stamp: u64) -> Vec<u8> {
        let mut w = Writer::new(MAGIC);
        w.u32(super::VERSION);
        w.bytes(&self.store);
        for value in [self.sequence, self.next_file, self.opens] {
            w.u64(value);
        }
        w.i64(self.complete_since_ns);
        w.i64(self.closed_ns);
        w.bytes(&self.boot_id);
        w.bytes(&self.place);
        w.u64(stamp);
        put_text(&mut w, &self.close_error);
        put_geometry(&mut w, &self.geometry);
        put_list(&mut w, &self.holes, |w, hole| {
            w.i64(hole.from_ns);
            w.i64(hole.to_ns);
            put_text(w, &hole.reason);
        });
        put_list(&mut w, &self.eras, |w, era| {
            w.u64(era.first);
            w.i64(era.start_ns);
            w.i64(era.slice_ns);
            w.i64(era.end_ns);
        });
        put_list(&mut w, &self.journals, |w, id| w.u64(*id));
        put_list(&mut w, &self.runs, |w, run| {
            w.u64(run.file);
            w.u64(run.slice);
            w.u64(run.keys);
        });
        put_list(&mut w, &self.refreshed, |w, refreshed| {
            w.u64(refreshed.slice);
            w.u64(refreshed.keys);
        });
        put_list(&mut w, &self.filters, |w, filter| {
            w.u64(filter.file);
            w.u32(filter.shard);
        });
        put_list(&mut w, &self.logs, |w, log| {
            w.u64(log.file);
            w.u64(log.end);
        });
        w.i64(self.covered_ns);
        w.u64(self.level);
        put_anchor(&mut w, &self.anchor);
        if !self.values.is_empty() {
            w.u32(VALUES);
            put_list(&mut w, &self.values, |w, values| {
                w.u64(values.file);
                w.u64(values.slice);
                w.u64(values.entries);
            });
        }
        if !self.chain.is_empty() {
            w.u32(CHAIN);
            self.chain.encode(&mut w);
        }
        if !self.space.is_empty() {
            put_text(&mut w, &self.space);
        }
        if let Some(owner) = &self.owner {
            put_list(&mut w, &owner.holders, |w, holder| w.bytes(holder));
            w.u64(owner.incarnation);
            w.i64(owner.foreign_until_ns);
            put_list(&mut w, &owner.unsent, |w, id| w.u64(*id));
        }
        w.finish()
    }

    /// Counts keys of `slice` that a newer sealed part holds too.
    pub(crate) fn add_refreshed(&mut self, slice: u64, keys: u64) {
        match self.refreshed.iter_mut().find(|refreshed| refreshed.slice == slice) {
            Some(refreshed) => refreshed.keys += keys,
            None => self.refreshed.push(Refreshed { slice, keys }),
        }
    }

    pub(crate) fn decode(bytes: &[u8], store: StoreId) -> Result<Self, Reason> {
        let mut r = Reader::verified(bytes, MAGIC)?;
        if r.u32()? != super::VERSION {
            return Err("it has another format version");
        }
        if r.array::<16>()? != store {
            return Err("it belongs to another store");
        }
        let mut manifest = Manifest {
            store,
            sequence: r.u64()?,
            next_file: r.u64()?,
            opens: r.u64()?,
            complete_since_ns: r.i64()?,
            closed_ns: r.i64()?,
            boot_id: r.array()?,
            place: r.array()?,
            stamp: r.u64()?,
            close_error: text(&mut r)?,
            geometry: geometry(&mut r)?,
            holes: r
                .list(20, |r| Ok(Hole { from_ns: r.i64()?, to_ns: r.i64()?, reason: text(r)? }))?,
            eras: r.list(32, era)?,
            journals: r.list(8, Reader::u64)?,
            runs: r.list(24, run)?,
            refreshed: r.list(16, |r| Ok(Refreshed { slice: r.u64()?, keys: r.u64()? }))?,
            filters: r.list(12, |r| Ok(FilterEntry { file: r.u64()?, shard: r.u32()? }))?,
            logs: r.list(16, |r| Ok(LogEntry { file: r.u64()?, end: r.u64()? }))?,
            covered_ns: r.i64()?,
            level: r.u64()?,
            anchor: anchor(&mut r)?,
            values: if r.takes(&VALUES.to_le_bytes()) { r.list(24, values)? } else { Vec::new() },
            chain: match r.takes(&CHAIN.to_le_bytes()) {
                true => Chain::decode(&mut r)?,
                false => Chain::default(),
            },
            space: if r.is_at_end() { String::new() } else { text(&mut r)? },
            owner: if r.is_at_end() { None } else { Some(owner(&mut r)?) },
        };
        r.finish()?;
        let contents = manifest.chain.contents();
        let content = |file: u64| contents.get(&file).copied().unwrap_or(UNKNOWN);
        manifest.runs.iter_mut().for_each(|run| run.content = content(run.file));
        manifest.values.iter_mut().for_each(|values| values.content = content(values.file));
        Ok(manifest)
    }

    /// The sealed files, as the chain states them.
    pub(crate) fn sealed(&self) -> Vec<Stated> {
        let runs = self.runs.iter().map(|run| {
            let (file, slice, content) = (run.file, run.slice, run.content);
            Stated { kind: FileKind::Run, file, slice, count: run.keys, content }
        });
        let values = self.values.iter().map(|values| {
            let (file, slice, content) = (values.file, values.slice, values.content);
            Stated { kind: FileKind::Values, file, slice, count: values.entries, content }
        });
        runs.chain(values).collect()
    }

    /// Adds a link to the chain if other sealed files are named than those that it ends with. Comes before
    /// every write, so that no change goes without one.
    pub(crate) fn link(&mut self, mended: bool) {
        let sealed = self.sealed();
        self.chain.follow(&self.store, &sealed, mended);
    }
}

fn run(r: &mut Reader<'_>) -> Result<RunEntry, Reason> {
    Ok(RunEntry { file: r.u64()?, slice: r.u64()?, keys: r.u64()?, content: UNKNOWN })
}

fn values(r: &mut Reader<'_>) -> Result<ValuesEntry, Reason> {
    Ok(ValuesEntry { file: r.u64()?, slice: r.u64()?, entries: r.u64()?, content: UNKNOWN })
}

fn put_list<T>(w: &mut Writer, items: &[T], put: impl Fn(&mut Writer, &T)) {
    w.u32(u32::try_from(items.len()).unwrap_or(u32::MAX));
    for item in items {
        put(w, item);
    }
}

fn owner(r: &mut Reader<'_>) -> Result<Owner, Reason> {
    Ok(Owner {
        holders: r.list(16, Reader::array)?,
        incarnation: r.u64()?,
        foreign_until_ns: r.i64()?,
        unsent: r.list(8, Reader::u64)?,
    })
}

fn put_text(w: &mut Writer, text: &str) {
    w.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    w.bytes(text.as_bytes());
}

fn text(r: &mut Reader<'_>) -> Result<String, Reason> {
    let len = r.u32()? as usize;
    Ok(String::from_utf8_lossy(r.slice(len)?).into_owned())
}

fn put_anchor(w: &mut Writer, anchor: &Anchor) {
    w.u64(anchor.sequence);
    for value in [anchor.engine_ns, anchor.boot_ns, anchor.wall_ns, anchor.watermark_ns] {
        w.i64(value);
    }
    w.bytes(&anchor.boot_id);
}

fn anchor(r: &mut Reader<'_>) -> Result<Anchor, Reason> {
    Ok(Anchor {
        sequence: r.u64()?,
        engine_ns: r.i64()?,
        boot_ns: r.i64()?,
        wall_ns: r.i64()?,
        watermark_ns: r.i64()?,
        boot_id: r.array()?,
    })
}

fn put_geometry(w: &mut Writer, g: &Geometry) {
    w.i64(g.window_ns);
    w.u32(g.slices);
    w.i64(g.slice_ns);
    w.u32(g.shard_bits);
    w.u64(g.expected_keys);
    w.u64(g.false_positive_rate.to_bits());
    w.u64(g.max_keys);
    w.i64(g.lease_ns);
    w.i64(g.max_event_lead_ns);
    w.u8(u8::from(g.refresh_on_duplicate));
}

fn geometry(r: &mut Reader<'_>) -> Result<Geometry, Reason> {
    let g = Geometry {
        window_ns: r.i64()?,
        slices: r.u32()?,
        slice_ns: r.i64()?,
        shard_bits: r.u32()?,
        expected_keys: r.u64()?,
        false_positive_rate: f64::from_bits(r.u64()?),
        max_keys: r.u64()?,
        lease_ns: r.i64()?,
        max_event_lead_ns: r.i64()?,
        refresh_on_duplicate: r.u8()? == 1,
    };
    if g.window_ns <= 0 || g.slice_ns <= 0 || g.shard_bits > 12 {
        return Err("its geometry is absurd");
    }
    Ok(g)
}

fn era(r: &mut Reader<'_>) -> Result<Era, Reason> {
    let era = Era { first: r.u64()?, start_ns: r.i64()?, slice_ns: r.i64()?, end_ns: r.i64()? };
    if era.slice_ns <= 0 || era.end_ns < era.start_ns || era.first > u64::MAX >> 1 {
        return Err("one of its eras is absurd");
    }
    Ok(era)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Manifest {
        Manifest {
            store: [1; 16],
            sequence: 5,
            geometry: Geometry {
                window_ns: 70,
                slices: 7,
                slice_ns: 10,
                shard_bits: 2,
                expected_keys: 1000,
                false_positive_rate: 0.001,
                max_keys: 0,
                lease_ns: 30,
                max_event_lead_ns: 60,
                refresh_on_duplicate: true,
            },
            next_file: 9,
            opens: 3,
            complete_since_ns: -4,
            holes: vec![Hole { from_ns: 1, to_ns: 2, reason: "lost".into() }],
            eras: vec![Era { first: 7, start_ns: 0, slice_ns: 10, end_ns: i64::MAX }],
            journals: vec![8],
            runs: vec![RunEntry { file: 2, slice: 7, keys: 3, content: UNKNOWN }],
            refreshed: vec![Refreshed { slice: 7, keys: 1 }],
            filters: vec![FilterEntry { file: 1, shard: 0 }],
            logs: vec![LogEntry { file: 4, end: LogEntry::IN_USE }],
            covered_ns: 11,
            level: 2,
            anchor: Anchor {
                sequence: 1,
                engine_ns: 2,
                boot_ns: 3,
                wall_ns: 4,
                boot_id: [5; 16],
                watermark_ns: 6,
            },
            boot_id: [2; 16],
            place: [3; 24],
            stamp: 13,
            closed_ns: i64::MIN,
            close_error: "disk".into(),
            values: Vec::new(),
            chain: Chain::default(),
            space: String::new(),
            owner: None,
        }
    }

    #[test]
    fn a_manifest_may_name_a_space() {
        let shared = Manifest { space: "orders".into(), ..sample() };
        let (bytes, alone) = (shared.encode(13), sample().encode(13));
        assert_eq!(bytes.len(), alone.len() + 4 + "orders".len());
        assert_eq!(Manifest::decode(&bytes, [1; 16]), Ok(shared.clone()));
        let owner = Owner {
            holders: vec![[4; 16], [5; 16]],
            incarnation: 6,
            foreign_until_ns: -7,
            unsent: vec![8, 9],
        };
        let owned = Manifest { owner: Some(owner), ..shared };
        assert_eq!(Manifest::decode(&owned.encode(13), [1; 16]), Ok(owned));
    }

    #[test]
    fn a_manifest_may_name_values() {
        let values = vec![ValuesEntry { file: 3, slice: 7, entries: 2, content: UNKNOWN }];
        let named = Manifest { values, ..sample() };
        assert_eq!(Manifest::decode(&named.encode(13), [1; 16]), Ok(named.clone()));
        let shared = Manifest { space: "orders".into(), ..named };
        assert_eq!(Manifest::decode(&shared.encode(13), [1; 16]), Ok(shared.clone()));
        let mut chained = shared;
        chained.runs[0].content = [9; 32];
        chained.values[0].content = [8; 32];
        chained.link(false);
        assert_eq!(Manifest::decode(&chained.encode(13), [1; 16]), Ok(chained.clone()));
        let alone = Manifest { space: String::new(), ..chained };
        assert_eq!(Manifest::decode(&alone.encode(13), [1; 16]), Ok(alone));
    }

    #[test]
    fn a_manifest_survives_and_every_flipped_or_missing_byte_is_noticed() {
        let bytes = sample().encode(13);
        assert_eq!(Manifest::decode(&bytes, [1; 16]), Ok(sample()));
        assert!(Manifest::decode(&bytes, [9; 16]).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Manifest::decode(&flipped, [1; 16]).is_err());
            assert!(Manifest::decode(&bytes[..at], [1; 16]).is_err());
        }
    }
}
