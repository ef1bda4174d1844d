//! From the command line to the parts of a run: what does not fit together is wrong usage.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use onceonly::{Builder, Dedup, Error as StoreError, Timestamp};

use crate::args::{DedupArgs, Format};
use crate::input;
use crate::record::{Wanted, WantedTime};

/// Wrong usage: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn usage<T>(message: impl Into<String>) -> Result<T> {
    Err(Usage(message.into()).into())
}

/// Longer than any input: the window of a run that has none, and how far ahead of the clock a time
/// may be (the data decide what is late, old recordings and simulations included).
const FIFTY_YEARS: Duration = Duration::from_secs(50 * 366 * 24 * 3600);

/// A run that was killed a moment ago may still be ending, and has the lock until then.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Small enough for small inputs, and the store grows for large ones. A size derived from the input
/// would be no better: lines are not distinct keys.
const EXPECTED_KEYS: u64 = 1_000_000;

/// What `dedup` reads, in which order.
pub(crate) fn paths(args: &DedupArgs) -> Vec<PathBuf> {
    if args.files.is_empty() { vec![PathBuf::from("-")] } else { args.files.clone() }
}

/// The format that was named, else that of the files' extensions.
pub(crate) fn format(args: &DedupArgs) -> Result<Format> {
    let format = match args.format {
        Some(format) => format,
        None => format_of_files(&args.files)?,
    };
    let lines = format == Format::Lines;
    if lines && !args.keys.is_empty() {
        return usage("lines have no fields for --key: name a --format, such as ndjson or csv");
    }
    if lines && args.time.is_some() {
        return usage("lines have no field for --time: name a --format, such as ndjson or csv");
    }
    if !lines && args.null {
        return usage(format!("-0 is for lines, not for {}", format.name()));
    }
    let table = matches!(format, Format::Csv | Format::Tsv);
    if args.no_header && !table {
        return usage(format!("--no-header is for csv and tsv, not for {}", format.name()));
    }
    for field in args.keys.iter().chain(&args.time) {
        if field.is_empty() {
            return usage("a field needs a name, a pointer or a number");
        }
        let number = field.parse::<usize>().is_ok_and(|number| number > 0);
        if args.no_header && !number {
            return usage(format!(
                "with --no-header a column is named by its number from 1, not `{field}`"
            ));
        }
    }
    Ok(format)
}

fn format_of_files(files: &[PathBuf]) -> Result<Format> {
    let mut formats = files.iter().filter(|path| !input::is_stdin(path)).map(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "ndjson" | "jsonl" => Format::Ndjson,
            "csv" => Format::Csv,
            "tsv" | "tab" => Format::Tsv,
            _ => Format::Lines,
        }
    });
    let first = formats.next().unwrap_or(Format::Lines);
    match formats.find(|format| *format != first) {
        Some(other) => usage(format!(
            "files of two formats ({} and {}): name one with --format",
            first.name(),
            other.name()
        )),
        None => Ok(first),
    }
}

/// Which fields are looked for.
pub(crate) fn wanted(args: &DedupArgs) -> Wanted {
    let now = Timestamp::from(SystemTime::now()).as_unix_nanos();
    let lead = i64::try_from(FIFTY_YEARS.as_nanos()).unwrap_or(i64::MAX);
    let time = args.time.clone().map(|field| WantedTime {
        field,
        format: args.time_format,
        latest: Timestamp::from_unix_nanos(now.saturating_add(lead)),
    });
    Wanted { keys: args.keys.clone(), time, missing: args.missing_key }
}

/// Opens the store of a run: in memory, or in its directory.
pub(crate) fn open_store(args: &DedupArgs) -> Result<Dedup> {
    let fresh = || Dedup::builder().expected_keys(EXPECTED_KEYS);
    let builder = match (&args.state, args.window) {
        (None, Some(window)) => fresh().window(window),
        (None, None) if args.time.is_some() => {
            return usage("--time needs --window: how long a key is remembered in that time");
        }
        (None, None) => fresh().window(FIFTY_YEARS).slices(1),
        (Some(dir), window) => stored(dir, window, fresh)?,
    };
    let builder = builder.event_time(args.time.is_some()).max_event_lead(FIFTY_YEARS);
    let builder = builder.allow_any_filesystem(args.any_filesystem);
    match &args.state {
        Some(dir) => builder.lock_wait(LOCK_WAIT).open(dir).map_err(name_store(dir)),
        None => Ok(builder.in_memory()?),
    }
}

/// The settings of the store in `dir`, with another window if one is given.
fn stored(dir: &Path, window: Option<Duration>, fresh: impl Fn() -> Builder) -> Result<Builder> {
    match (Builder::stored(dir), window) {
        (Ok(builder), Some(window)) => Ok(builder.window(window)),
        (Ok(builder), None) => Ok(builder),
        // Nothing there yet, or a run was killed while it created the store, or the directory
        // belongs to something else: opening it tells them apart.
        (
            Err(
                StoreError::NotAStore { .. }
                | StoreError::Unfinished { .. }
                | StoreError::Io { .. },
            ),
            Some(window),
        ) => Ok(fresh().window(window)),
        (Err(error), None) if matches!(error, StoreError::Unfinished { .. }) || is_unused(dir) => {
            usage(format!(
                "{} holds no state yet: --window says how long a key is to be remembered",
                dir.display()
            ))
        }
        (Err(error), _) => Err(name_store(dir)(error)),
    }
}

/// Puts the store's directory before an error that does not name it, and says what is to be done
/// here where the library's words are for programs.
pub(crate) fn name_store(dir: &Path) -> impl Fn(StoreError) -> anyhow::Error + '_ {
    move |error| match error {
        StoreError::NotAStore { .. }
        | StoreError::Unfinished { .. }
        | StoreError::Io { .. }
        | StoreError::Corrupt { .. } => error.into(),
        StoreError::Locked { pid } => {
            anyhow!("{}: process {pid} has the store open: end that one first", dir.display())
        }
        _ => anyhow::Error::new(error).context(dir.display().to_string()),
    }
}

/// Whether there is nothing in `dir`.
pub(crate) fn is_unused(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// The bytes of an argument, which need not be UTF-8.
pub(crate) fn bytes_of(argument: &OsString) -> &[u8] {
    argument.as_bytes()
}
