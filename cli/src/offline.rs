//! The commands that look into a store: `inspect`, `verify`, `explain`, and `forget`.

use std::fmt::{Display, Write as _};

use anyhow::{Result, bail};
use onceonly::offline::{self, ChainReport, Inspection, Repair, Verification};
use onceonly::{Builder, Explanation, Key, KeyState, KeyTrace, Scope, Tier};

use crate::args::{ForgetArgs, KeyArgs, StoreArgs, VerifyArgs};
use crate::output;
use crate::setup::{LOCK_WAIT, Usage, bytes_of, name_store};
use crate::timestamp::show;
use crate::units::{bytes, duration, grouped};

/// Lines of a name and a value, the values below each other.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name:<22}{value}");
    }

    fn print(&self) -> Result<()> {
        output::print(&self.0)
    }
}

pub(crate) fn inspect(args: &StoreArgs) -> Result<()> {
    let found = offline::inspect(&args.dir).map_err(name_store(&args.dir))?;
    let mut table = Table::default();
    settings(&mut table, &found);
    contents(&mut table, &found);
    table.print()
}

fn settings(table: &mut Table, found: &Inspection) {
    table.row("as of", show(found.as_of));
    table.row("format version", found.format_version);
    table.row("created", show(found.created));
    let slices = format!("{} in {} slices", duration(found.window), found.slices);
    table.row("window", slices);
    table.row("time", if found.event_time { "of the events" } else { "of the clock" });
    table.row("expected keys", grouped(found.expected_keys));
    table.row("wanted rate", format!("{} % false positives", found.false_positive_rate * 100.0));
    table.row("digest", found.digest.name());
    match found.owner_pid {
        Some(pid) => table.row("open in process", pid),
        None => table.row("open in process", "none"),
    }
}

fn contents(table: &mut Table, found: &Inspection) {
    table.row("guaranteed since", show(found.guaranteed_since));
    let closed = found.last_clean_close.map_or_else(|| "never".to_owned(), show);
    table.row("last clean close", closed);
    table.row("keys live", grouped(found.keys_live));
    table.row("unsealed keys", grouped(found.unsealed_keys));
    table.row("filter fill", format!("{:.1} %", found.filter_fill * 100.0));
    let rate = format!("{:.4} % by its fill", found.filter_false_positive_rate * 100.0);
    table.row("false positives", rate);
    table.row("disk", bytes(found.disk_bytes));
    if let Some(head) = &found.chain_head {
        table.row("head of the chain", head);
    }
    for slice in &found.live_slices {
        let incomplete = if slice.complete { "" } else { ", incomplete" };
        let text = format!(
            "{} to {}, expires {}: {} sealed keys in {} parts{incomplete}",
            show(slice.start),
            show(slice.end),
            show(slice.expires),
            grouped(slice.sealed_keys),
            slice.sealed_parts,
        );
        table.row(&format!("slice {}", slice.sequence), text);
    }
    for claim in &found.claims {
        let state = if claim.orphaned {
            "its owner is gone".to_owned()
        } else {
            format!("lease left {}", duration(claim.lease_left))
        };
        table.row(&format!("claim {}", claim.token), format!("digest {}, {state}", claim.digest));
    }
    for file in &found.files {
        table.row(file.kind, format!("{:>12}  {}", bytes(file.bytes), file.name));
    }
}

pub(crate) fn verify(args: &VerifyArgs) -> Result<()> {
    let dir = &args.store.dir;
    let mut table = Table::default();
    let left = if args.repair {
        let repair = offline::repair(dir).map_err(name_store(dir))?;
        verification(&mut table, &repair.found);
        repaired(&mut table, &repair);
        repair.left
    } else {
        let found = match &args.head {
            Some(head) => offline::verify_head(dir, head),
            None => offline::verify(dir),
        };
        let found = found.map_err(name_store(dir))?;
        verification(&mut table, &found);
        found
    };
    table.print()?;
    if !left.problems.is_empty() {
        bail!("{}: the store is damaged", dir.display());
    }
    Ok(())
}

fn verification(table: &mut Table, found: &Verification) {
    table.row("files checked", grouped(found.files_checked));
    table.row("blocks checked", grouped(found.blocks_checked));
    table.row("keys checked", grouped(found.keys_checked));
    for name in &found.unknown_files {
        table.row("unknown file", name);
    }
    for name in &found.leftovers {
        table.row("leftover", name);
    }
    for problem in &found.problems {
        table.row("damaged", format!("{}: {}", problem.file.display(), problem.detail));
    }
    chained(table, &found.chain);
    table.row("problems", found.problems.len());
}

fn chained(table: &mut Table, chain: &ChainReport) {
    let Some(head) = &chain.head else { return };
    table.row(
        "chain",
        format!("{} links, {} kept", grouped(chain.links), grouped(chain.links_kept)),
    );
    table.row("head", head);
    if chain.keys_before > 0 {
        table.row("sealed before it began", format!("{} keys", grouped(chain.keys_before)));
    }
    if let Some(noted) = &chain.noted {
        let text = format!(
            "on the chain, link {}; of {} sealed keys then, {} are in files that are as they were",
            grouped(noted.link),
            grouped(noted.keys_then),
            grouped(noted.keys_unchanged)
        );
        table.row("noted head", text);
        let since = format!(
            "{} sealed, {} merged, {} dropped, {} mended",
            grouped(noted.sealed_since),
            grouped(noted.merged_since),
            grouped(noted.dropped_since),
            grouped(noted.mended_since)
        );
        table.row("links since", since);
    }
}

fn repaired(table: &mut Table, repair: &Repair) {
    for name in &repair.set_aside {
        table.row("set aside", name);
    }
    if repair.keys_kept > 0 {
        table.row("kept of damaged files", format!("{} keys", grouped(repair.keys_kept)));
    }
    for lost in &repair.recovery.damage {
        table.row("may be lost", lost);
    }
    if repair.recovery.filters_rebuilt > 0 {
        table.row("filters rebuilt", repair.recovery.filters_rebuilt);
    }
    table.row("problems left", repair.left.problems.len());
}

/// The key that the arguments name.
fn key_of(args: &KeyArgs) -> Result<Vec<u8>> {
    let fields: Vec<&[u8]> = args.key.iter().map(bytes_of).collect();
    match fields[..] {
        [field] => Ok(field.to_vec()),
        _ if args.fields => Ok(Key::from_fields(&fields).as_bytes().to_vec()),
        _ => {
            Err(Usage("several keys: --fields says that they are the fields of one".into()).into())
        }
    }
}

pub(crate) fn explain(args: &KeyArgs) -> Result<()> {
    let key = key_of(args)?;
    let scope = args.scope.as_ref().map(bytes_of);
    let found = offline::explain(&args.dir, scope, &key).map_err(name_store(&args.dir))?;
    explanation(&found).print()
}

fn explanation(found: &Explanation) -> Table {
    let mut table = Table::default();
    match &found.state {
        KeyState::Unknown => table.row("state", "unknown: the next one is new"),
        KeyState::Live { expires } => {
            table.row(
                "state",
                format!("live until {}: the next one is a duplicate", show(*expires)),
            );
        }
        KeyState::Forgotten => table.row("state", "forgotten: the next one is new"),
        KeyState::InFlight { token, lease_left } => {
            let left = duration(*lease_left);
            table.row("state", format!("in flight: claim {token}, lease left {left}"));
        }
        other => table.row("state", format!("{other:?}")),
    }
    table.row("digest", &found.digest);
    if let Some(slices) = &found.suspected_slices {
        let slices: Vec<_> = slices.iter().map(u64::to_string).collect();
        let names = if slices.is_empty() { "none".to_owned() } else { slices.join(", ") };
        table.row("filter suspects slice", names);
    }
    for sighting in &found.sightings {
        let tier = match sighting.tier {
            Tier::Unsealed => "unsealed",
            Tier::Sealed => "sealed",
            _ => "another tier",
        };
        let text = format!(
            "slice {}, {tier}, from {} to {}",
            sighting.slice,
            show(sighting.not_before),
            show(sighting.before),
        );
        table.row("seen in", text);
    }
    if let Some(trace) = &found.trace {
        traced(&mut table, trace);
    }
    table
}

fn traced(table: &mut Table, trace: &KeyTrace) {
    if let Some(claimed) = trace.claimed {
        table.row("first claimed", show(claimed));
    }
    if let Some(token) = trace.token {
        table.row("by claim", token);
    }
    if !trace.note.is_empty() {
        table.row("its note", String::from_utf8_lossy(&trace.note).escape_debug());
    }
    table.row("duplicates refused", grouped(trace.refused));
}

pub(crate) fn forget(args: &ForgetArgs) -> Result<()> {
    let any_filesystem = args.any_filesystem;
    let args = &args.key;
    let key = key_of(args)?;
    let builder = Builder::stored(&args.dir).map_err(name_store(&args.dir))?;
    let builder = builder.lock_wait(LOCK_WAIT).allow_any_filesystem(any_filesystem);
    let store = builder.open(&args.dir).map_err(name_store(&args.dir))?;
    let scope = match &args.scope {
        Some(name) => store.scope(bytes_of(name)),
        None => Scope::clone(&store),
    };
    let was_live = scope.forget(&key).map_err(name_store(&args.dir))?;
    store.close().map_err(name_store(&args.dir))?;
    output::print(if was_live { "forgotten\n" } else { "not known\n" })
}
