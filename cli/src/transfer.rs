//! `export` and `import`: the live keys of one store, for another of the same secret.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use onceonly::{Builder, EXPORT_HEAD, Error as StoreError};

use crate::args::{ExportArgs, ImportArgs};
use crate::output::{self, StdoutClosed};
use crate::setup::{LOCK_WAIT, Usage, is_unused, name_store};
use crate::timestamp::show;
use crate::units::{bytes, grouped};

const BUFFER: usize = 1 << 20;

pub(crate) fn export(args: &ExportArgs) -> Result<()> {
    if io::stdout().is_terminal() {
        let why = "the keys are not for a terminal: write them to a file or a pipe";
        return Err(Usage(why.to_owned()).into());
    }
    let named = name_store(&args.dir);
    let builder = Builder::stored(&args.dir).map_err(&named)?;
    let builder = builder.lock_wait(LOCK_WAIT).allow_any_filesystem(args.any_filesystem);
    let store = builder.open(&args.dir).map_err(&named)?;
    // A handle of its own: the standard one looks for line ends in everything.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().context("stdout")?);
    let exported =
        store.export(BufWriter::with_capacity(BUFFER, stdout)).map_err(|error| match &error {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                StdoutClosed.into()
            }
            _ => named(error),
        })?;
    store.close().map_err(&named)?;
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let (keys, size) = (grouped(exported.keys), bytes(exported.bytes));
        writeln!(stderr, "{keys} keys, {size}, known since {}", show(exported.guaranteed_since))?;
    }
    Ok(())
}

pub(crate) fn import(args: &ImportArgs) -> Result<()> {
    let named = name_store(&args.dir);
    let mut stdin = BufReader::with_capacity(BUFFER, io::stdin());
    let mut head = [0; EXPORT_HEAD];
    stdin.read_exact(&mut head).context("stdin: it is shorter than what an export writes")?;
    let stored = if is_unused(&args.dir) { None } else { Some(Builder::stored(&args.dir)) };
    let builder = match stored {
        None | Some(Err(StoreError::Unfinished { .. })) => new_store(args, &head)?,
        Some(stored) => stored.map_err(&named)?,
    };
    let builder = match &args.secret_from {
        Some(other) => builder.secret_of(other).map_err(name_store(other))?,
        None => builder,
    };
    let builder = builder.lock_wait(LOCK_WAIT).allow_any_filesystem(args.any_filesystem);
    let store = builder.open(&args.dir).map_err(&named)?;
    let imported = store.import((&head[..]).chain(stdin)).map_err(&named)?;
    store.close().map_err(&named)?;
    output::print(&format!(
        "keys {} known {} expired {} values {} claims {}\nguaranteed since {}\n",
        imported.keys,
        imported.known,
        imported.expired,
        imported.values,
        imported.claims,
        show(imported.guaranteed_since)
    ))
}

/// A store like the one that was exported.
fn new_store(args: &ImportArgs, head: &[u8; EXPORT_HEAD]) -> Result<Builder> {
    if args.secret_from.is_none() {
        let dir = args.dir.display();
        let why = format!(
            "{dir}: there is no store yet: --secret-from names one with the secret of the keys"
        );
        return Err(Usage(why).into());
    }
    Builder::exported(head).context("stdin")
}
