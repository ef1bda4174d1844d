//! Benchmarks of `onceonly` beside what users would pick instead, and of this machine.

mod all;
mod args;
mod cli;
mod compare;
mod contestants;
mod first_page;
mod floor;
mod growth;
mod hybrid;
#[allow(dead_code, reason = "shared with the library's own benches")]
#[path = "../../common/keys.rs"]
mod keys;
mod latency;
mod machine;
mod memory;
mod overload;
mod pictures;
mod provenance;
mod remembers;
mod reopen;
mod report;
mod results;
mod scaling;
mod tables;
mod targets;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use args::{Args, Result};

const USAGE: &str = "\
usage: onceonly-peers COMMAND [--OPTION VALUE]…

  compare   the same stream through onceonly and its peers, side by side
              --live 1M,10M,100M   --warm-limit 600 (seconds to fill a peer)
              --peer none | of hashbrown,hashbrown-digests-first,dashmap,moka,quick_cache,lru,
                     sbbf,fastbloom,lmdb,fjall,sqlite,redis,postgres,floor
              --mode both|one|batch   --batch 32
              --rounds 16   --warm 2 (windows)   --duplicates-per-mille 20
              --charge-background no|yes   --cpu-time no|yes (for machines that others use as well)
  claims    claim + commit and process_once beside observe (options as above)
  scaling   two threads on two cores against one thread on one core, background work included
              --live 10M   --rounds 24   --batch 32   --peer (as above)
  latency   percentiles of single observes at an offered rate, across rotations
              --live 10M   --rate 1M   --seconds 30   --pin no|yes
  reopen    time to the first answer after a clean close and after kill -9
              --live 100M   --more 2M   --slices all|one
  cli       `onceonly dedup` beside huniq and runiq, whole processes; installs the two if need be
              --rounds 9   --files uuids-1M,uuids-10M,few-10M,flights,ndjson-1M,ndjson-id-1M
              --onceonly PATH (else it is built)   --peers DIR (where the two are installed)
  remembers what is left of the acknowledged keys after kill -9, of every peer that keeps any
              --keys 200k
  growth    time, memory, disk, bytes written and opening as a store grows
              --live 1M,10M,100M   --more 200k
  overload  a stream ten times as large as planned
              --planned 1M   --times 10   --rounds 7
  hybrid    the engine with a server behind it, beside asking the server for every message
              --server redis|postgres   --what exclusive|shared|move|stop
              --live 10M   --rounds 8   --batch 32   --threads 8   --keys 16k   --seconds 10
  floor     what this machine charges for hashing, locking and memory

  all       all of these, then the tables of docs/performance.md and README.md, and the pictures
              --only compare,latency (parts)   --quick (a trial; results in the data directory)
              --resume (leave out what was measured with this engine)
  tables, pictures   make them again from benches/results

  each: --dir DIR for the stores (target/peers-data)   --csv FILE for the results
";

fn run(command: &str, mut args: Args) -> Result<()> {
    match command {
        "compare" => compare::main(args),
        "claims" => {
            args.set_default("peer", "claims,process-once");
            compare::main(args)
        }
        "scaling" => scaling::main(args),
        "scaling-child" => scaling::child(args),
        "latency" => latency::main(args),
        "reopen" => reopen::main(args),
        "reopen-child" => reopen::child(args),
        "cli" => cli::main(args),
        "floor" => floor::main(args),
        "remembers" => remembers::main(args),
        "remembers-child" => remembers::child(args),
        "growth" => growth::main(args),
        "growth-child" => growth::child(args),
        "hybrid" => hybrid::main(args),
        "overload" => overload::main(args),
        "all" => all::main(args),
        "tables" | "pictures" => all::redo(args, command),
        other => Err(format!("no command is named {other:?}\n{USAGE}").into()),
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(command) = words.next() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match Args::parse(words).and_then(|args| run(&command, args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("onceonly-peers: {error}");
            ExitCode::FAILURE
        }
    }
}
