//! The command line as clap sees it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::units::{self, Rate};

/// Exact deduplication: "seen before?" in nanoseconds, remembered on disk.
#[derive(Debug, Parser)]
#[command(name = "onceonly", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit code: 0 on success, 1 on failure, 2 on wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the first occurrence of every line or record
    #[command(after_long_help = DEDUP_HELP)]
    Dedup(Box<DedupArgs>),
    /// Print the memory, disk and files that a window takes, before anything is written
    Plan(PlanArgs),
    /// Measure this machine for about a minute, and recommend a batch size and a number of shards
    Bench(BenchArgs),
    /// Print what a store holds, also while a process has it open
    Inspect(StoreArgs),
    /// Check every file of a store, also while a process has it open; exit code 1 if one is damaged
    Verify(VerifyArgs),
    /// Print what a store knows of a key, also while a process has it open
    Explain(KeyArgs),
    /// Make a store forget a key; refuses a store that a process has open
    Forget(ForgetArgs),
    /// Write a store's live keys to stdout, for import; refuses a store that a process has open
    Export(ExportArgs),
    /// Take over live keys from stdin; refuses a store that a process has open
    #[command(after_long_help = IMPORT_HELP)]
    Import(ImportArgs),
}

const IMPORT_HELP: &str = "\
Examples:
  onceonly export state/orders-3 | ssh other onceonly import state/orders-3
  onceonly import --secret-from state/orders-0 state/orders-3 < orders-3.keys

Both stores have one secret. A run that is killed, or meets a damaged stream, keeps what it had taken
over, and does not change what the store vouches for: run it again with the whole stream.";

const DEDUP_HELP: &str = "\
Examples:
  onceonly dedup access.log
  onceonly dedup --key user,/order/id --format ndjson < events
  onceonly dedup --state seen/ --window 7d --key id today.csv
  onceonly dedup --key id --time at --window 1h events.ndjson

Keys:
  A line's key is the line without its end (LF or CRLF). A JSON value's key is its raw text without
  insignificant space, so 1, 1.0 and \"1\" are three keys; of equal names in an object the last one
  counts. A CSV value's key is the field without its quotes; TSV has no quotes. A column whose name
  has a comma is named by its number. Several fields make one key, in which (\"a\", \"bc\") differs
  from (\"ab\", \"c\"). Records are printed as they came; empty lines between rows, or between JSON
  values that are looked into, are left out.

Being killed:
  With --state, lines are written and flushed before their keys are marked. A run that is killed
  at any moment repeats some lines when it is run again; it never loses one. Written means handed
  to the operating system: what a reader behind a pipe drops, or a power loss takes, is not repeated.

Exit code: 0 on success (also when the reader of the output closes it), 1 on failure, 2 on wrong
usage. Before a failure is reported, everything decided so far has been written and remembered.";

#[derive(Debug, Args)]
pub(crate) struct DedupArgs {
    /// Files to read, one after the other; "-" is stdin, which is also the default
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// What to compare: a JSON pointer or top-level name (ndjson), a column's name or its number
    /// from 1 (csv, tsv). May be repeated; by default the whole line
    #[arg(long = "key", value_name = "FIELD", value_delimiter = ',')]
    pub(crate) keys: Vec<String>,

    /// What a record is; by default what the files' extension says, else lines
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// The first record of a csv or tsv file is data; columns are named by number
    #[arg(long)]
    pub(crate) no_header: bool,

    /// How long a key is remembered, such as 90s, 1h or 7d; by default for the whole input.
    /// Required when --state creates a store
    #[arg(long, value_name = "TIME", value_parser = units::parse_window)]
    pub(crate) window: Option<Duration>,

    /// Let the window follow this field's time instead of the clock
    #[arg(long, value_name = "FIELD")]
    pub(crate) time: Option<String>,

    /// How the time field is written
    #[arg(long, value_enum, default_value = "rfc3339", requires = "time")]
    pub(crate) time_format: TimeFormat,

    /// What becomes of a record that is older than the window, of which nothing is known
    #[arg(long, value_enum, default_value = "pass", requires = "time")]
    pub(crate) late: Late,

    /// Remember keys in this directory across runs; safe to kill at any moment: lines are written
    /// before their keys are marked, so a killed run repeats lines rather than losing them
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Allow a state on a network or copy-on-write file system, which is refused otherwise: never
    /// open it from two machines, and keep space free
    #[arg(long, requires = "state")]
    pub(crate) any_filesystem: bool,

    /// Keep the keys apart from those of other scopes in the same state
    #[arg(long, value_name = "NAME")]
    pub(crate) scope: Option<OsString>,

    /// What becomes of a record without the key or time field
    #[arg(long, value_enum, default_value = "error")]
    pub(crate) missing_key: MissingKey,

    /// Print the duplicates instead
    #[arg(long, conflicts_with = "count")]
    pub(crate) duplicates: bool,

    /// Print counts only
    #[arg(long)]
    pub(crate) count: bool,

    /// Print statistics to stderr at the end
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) stats: Option<StatsFormat>,

    /// Lines end with a NUL byte instead of a newline
    #[arg(short = '0', long)]
    pub(crate) null: bool,

    /// No progress and no warnings
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Lines,
    Ndjson,
    Csv,
    Tsv,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Lines => "lines",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimeFormat {
    /// 2026-11-23T09:30:00Z, with any offset and up to nine decimals
    Rfc3339,
    /// Seconds since 1970, with or without decimals
    Unix,
    /// Milliseconds since 1970, with or without decimals
    UnixMs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Late {
    /// Print it
    Pass,
    /// Leave it out
    Drop,
    /// End with an error that names file and line
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MissingKey {
    /// End with an error that names file and line
    Error,
    /// Print it
    Pass,
    /// Leave it out
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsFormat {
    /// One JSON object
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Keys that arrive, such as 50k/s, 3M/h or 1.5G/d
    #[arg(long, value_parser = units::parse_rate)]
    pub(crate) rate: Rate,

    /// How long a key is remembered, such as 90s, 1h or 7d
    #[arg(long, value_name = "TIME", value_parser = units::parse_window)]
    pub(crate) window: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How long to measure; filling the stores comes on top
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,

    /// Live keys of the window; a larger window takes longer to fill
    #[arg(long, value_name = "KEYS", default_value_t = 2_000_000,
          value_parser = clap::value_parser!(u64).range(262_144..=1_000_000_000))]
    pub(crate) live: u64,

    /// Where to make the stores, about 25 bytes a live key; they are deleted at the end. By default
    /// the directory for temporary files, which may be memory: name one on the disk that counts
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// The store's directory
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    /// Set aside what is damaged, keep what is not, and note what may be lost; refuses a store that a
    /// process has open
    #[arg(long)]
    pub(crate) repair: bool,

    /// Also say whether this head of the store's chain of hashes, noted earlier from what inspect prints,
    /// is on the chain: whether what was sealed until then has been edited
    #[arg(long, value_name = "HEX", conflicts_with = "repair")]
    pub(crate) head: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Also on a network or copy-on-write file system
    #[arg(long)]
    pub(crate) any_filesystem: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The store's directory
    pub(crate) dir: PathBuf,

    /// Also on a network or copy-on-write file system
    #[arg(long)]
    pub(crate) any_filesystem: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The store's directory; a new store gets the settings of the one that was exported
    pub(crate) dir: PathBuf,

    /// For a new store: one that has the digest and the secret of the keys
    #[arg(long, value_name = "DIR")]
    pub(crate) secret_from: Option<PathBuf>,

    /// Also on a network or copy-on-write file system
    #[arg(long)]
    pub(crate) any_filesystem: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The store's directory
    pub(crate) dir: PathBuf,

    /// The key as it is: a JSON string with its quotes, a CSV field without
    #[arg(required = true)]
    pub(crate) key: Vec<OsString>,

    /// The arguments after DIR are the fields of one key, as with several --key of dedup
    #[arg(long)]
    pub(crate) fields: bool,

    /// The scope that the key was seen in
    #[arg(long, value_name = "NAME")]
    pub(crate) scope: Option<OsString>,
}
