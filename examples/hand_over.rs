//! Hands a partition over: the keys of one store go to another through a pipe, and both are measured.
//!
//! ```sh
//! cargo run --release --example hand_over -- 10000000
//! ```

#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::io::{BufReader, BufWriter};
use std::time::{Duration, Instant};

use onceonly::Dedup;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments.next().map_or(Ok(1_000_000), |keys| keys.parse())?;
    let dir = tempfile::tempdir()?;
    // Stores that exchange keys have one secret.
    let settings = Dedup::builder()
        .window(Duration::from_secs(3600))
        .expected_keys(keys)
        .secret(*b"all partitions share this secret")
        .allow_any_filesystem(true);
    let from = settings.clone().shards(4).open(dir.path().join("from"))?;
    let to = settings.shards(8).open(dir.path().join("to"))?;
    for first in (0..keys).step_by(1000) {
        let some: Vec<[u8; 8]> = (first..keys.min(first + 1000)).map(|n| n.to_le_bytes()).collect();
        let _ = from.observe_batch(&some)?;
    }
    from.settle();

    let begin = Instant::now();
    let (receiver, sender) = std::io::pipe()?;
    let (exported, imported) = std::thread::scope(|scope| {
        // The messages of the partition go nowhere from here on, until the next owner has its keys.
        let export = scope.spawn(|| from.export(BufWriter::with_capacity(1 << 20, sender)));
        let imported = to.import(BufReader::with_capacity(1 << 20, receiver));
        export.join().map(|exported| (exported, imported))
    })
    .map_err(|_| "the export panicked")?;
    let (exported, imported) = (exported?, imported?);
    from.close()?;
    println!(
        "{} keys, {} bytes, {:.2} s; {} are new there",
        exported.keys,
        exported.bytes,
        begin.elapsed().as_secs_f64(),
        imported.keys
    );

    let begin = Instant::now();
    for first in (0..keys).step_by(1000) {
        let some: Vec<[u8; 8]> = (first..keys.min(first + 1000)).map(|n| n.to_le_bytes()).collect();
        if to.contains_batch(&some)?.contains(&false) {
            return Err(format!("a key from {first} on is lost").into());
        }
    }
    println!("all are known there, asked for in {:.2} s", begin.elapsed().as_secs_f64());
    Ok(())
}
