//! Header and manifest of a store: read from its directory, or made for a new one.

use crate::config::Config;
use crate::engine::time::NO_WATERMARK;
use crate::error::{Error, Result};
use crate::format::chain::Chain;
use crate::format::clock::Anchor;
use crate::format::header::{HeaderError, StoreHeader};
use crate::format::manifest::{Era, Geometry, Manifest};
use crate::format::{VERSION, names};
use crate::log::Level;
use crate::random;
use crate::storage::Storage;

/// The first slice of a new store: an import may bring older ones.
const FIRST_SLICE: u64 = 1 << 10;

/// The header of an existing store.
pub(crate) fn read_header(storage: &dyn Storage) -> Result<Option<StoreHeader>> {
    let Some(bytes) = storage.read(names::STORE)? else { return Ok(None) };
    match StoreHeader::decode(&bytes) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderError::Newer(found)) => Err(Error::Version { found, supported: VERSION }),
        Err(HeaderError::Damaged(why)) => Err(Error::corrupt(storage.path(names::STORE), why)),
    }
}

pub(super) fn create_header(config: &Config, storage: &dyn Storage) -> Result<StoreHeader> {
    let lost = storage
        .list()?
        .into_iter()
        .find(|name| name == names::MANIFEST || names::parse(name).is_some());
    if lost.is_some() {
        let path = storage.path(names::STORE);
        return Err(Error::corrupt(path, "it is missing, but files of a store are there"));
    }
    if config.space().is_some() && config.secret.is_none() {
        let reason = "is required for a new store with an authority: all that share keys have one";
        return Err(Error::config("secret", reason));
    }
    let mut store = [0; 16];
    fill_random(&mut store)?;
    let secret = match config.secret {
        Some(secret) => secret.0,
        None => {
            let mut secret = [0; 32];
            fill_random(&mut secret)?;
            secret
        }
    };
    let header = StoreHeader {
        version: VERSION,
        min_version: VERSION,
        store,
        digest: config.digest.unwrap_or_default(),
        event_time: config.event_time,
        secret,
        created_ns: config.clock.wall_nanos(),
    };
    storage.replace(names::STORE, &|_| header.encode())?;
    Ok(header)
}

fn fill_random(out: &mut [u8]) -> Result<()> {
    random::fill(out)
        .map_err(|error| Error::io("reading random bytes from", "the operating system", error))
}

pub(super) fn refuse_mismatch(config: &Config, header: &StoreHeader) -> Result<()> {
    let mismatch = |field, detail: String| Err(Error::Mismatch { field, detail });
    if config.digest.is_some_and(|kind| kind != header.digest) {
        return mismatch("digest", format!("it has {}", header.digest.name()));
    }
    if config.secret.is_some_and(|secret| secret.0 != header.secret) {
        return mismatch("secret", "its keys were digested with another one".into());
    }
    if config.event_time != header.event_time {
        return mismatch("event_time", format!("it has {}", header.event_time));
    }
    Ok(())
}

/// A store that shares a space knows what this process has seen and no more: alone, or in another space,
/// it would answer for what it does not know.
pub(super) fn refuse_other_space(config: &Config, manifest: &Manifest) -> Result<()> {
    let named = config.space();
    if manifest.space.is_empty() || config.any_space {
        return Ok(());
    }
    let space = &manifest.space;
    if named == Some(space) && config.owned.is_some() == manifest.owner.is_some() {
        return Ok(());
    }
    let detail = match manifest.owner {
        Some(_) => format!("it is the only writer of the space `{space}`: `Ownership::Exclusive`"),
        None => format!("it shares the space `{space}` of an authority: `Ownership::Shared`"),
    };
    let field =
        if named == Some(space) || named.is_none() { "authority" } else { "authority_space" };
    Err(Error::Mismatch { field, detail })
}

/// The manifest of an existing store; `None` when the store was never opened to the end.
pub(crate) fn read_manifest(
    storage: &dyn Storage,
    header: &StoreHeader,
) -> Result<Option<Manifest>> {
    let path = storage.path(names::MANIFEST);
    match storage.read(names::MANIFEST)? {
        Some(bytes) => Manifest::decode(&bytes, header.store)
            .map(Some)
            .map_err(|why| Error::corrupt(path, why)),
        None if storage.list()?.iter().any(|name| names::parse(name).is_some()) => {
            Err(Error::corrupt(path, "it is missing, but files of a store are there"))
        }
        None => Ok(None),
    }
}

pub(super) fn geometry(config: &Config) -> Geometry {
    Geometry {
        window_ns: config.window_ns,
        slices: config.slices,
        slice_ns: config.slice_ns,
        shard_bits: config.shard_bits,
        expected_keys: config.expected_keys,
        false_positive_rate: config.false_positive_rate,
        max_keys: config.max_keys.unwrap_or(0),
        lease_ns: config.lease_ns,
        max_event_lead_ns: crate::time::nanos(config.max_event_lead),
        refresh_on_duplicate: config.refresh_on_duplicate,
    }
}

pub(super) fn new_manifest(config: &Config, header: &StoreHeader, level: Level) -> Manifest {
    // Slices of event time are counted from long ago, so that any first event has a place.
    let start_ns = if config.event_time { NO_WATERMARK } else { header.created_ns };
    Manifest {
        store: header.store,
        sequence: 0,
        geometry: geometry(config),
        next_file: 1,
        opens: 0,
        complete_since_ns: if config.event_time { i64::MIN } else { header.created_ns },
        holes: Vec::new(),
        eras: vec![Era {
            first: FIRST_SLICE,
            start_ns,
            slice_ns: config.slice_ns,
            end_ns: i64::MAX,
        }],
        journals: Vec::new(),
        runs: Vec::new(),
        refreshed: Vec::new(),
        filters: Vec::new(),
        logs: Vec::new(),
        covered_ns: i64::MIN,
        level: level.code(),
        anchor: Anchor {
            sequence: 0,
            engine_ns: i64::MIN,
            boot_ns: 0,
            wall_ns: 0,
            boot_id: [0; 16],
            watermark_ns: i64::MIN,
        },
        boot_id: [0; 16],
        place: [0; 24],
        stamp: 0,
        closed_ns: i64::MIN,
        close_error: String::new(),
        values: Vec::new(),
        chain: Chain::default(),
        space: String::new(),
        owner: None,
    }
}
