//! What the server pays a key: its processor time, and its memory.
//!
//! ```sh
//! redis-server --port 7001 --save '' & cargo run --release --example measure -- redis://127.0.0.1:7001
//! ```
//!
//! The server is emptied, so it asks for one of its own.

use std::error::Error;
use std::io::Write as _;
use std::time::{Duration, Instant};

use onceonly::Timestamp;
use onceonly::authority::{
    Acquire, Append, Authority, Bucket, Chunk, Digest, Progress, Row, RowOp, Token,
};
use onceonly_redis::RedisAuthority;

type Done<T = ()> = Result<T, Box<dyn Error>>;

const KEYS: u64 = 400_000;
const KEEP: Duration = Duration::from_secs(3_600);

struct Bench {
    client: redis::Connection,
    authority: RedisAuthority,
}

/// Seconds of the server's processor, bytes of its memory.
fn used(client: &mut redis::Connection) -> Done<(f64, u64)> {
    let info: String = redis::cmd("INFO").query(client)?;
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let cpu = field("used_cpu_user_main_thread").parse::<f64>()?
        + field("used_cpu_sys_main_thread").parse::<f64>()?;
    Ok((cpu, field("used_memory").parse()?))
}

fn digest(number: u64) -> Digest {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Digest::from_bytes(bytes)
}

fn token(number: u64) -> Token {
    Token::from_bytes(*digest(!number).as_bytes())
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

impl Bench {
    fn measure(&mut self, what: &str, keys: u64, work: impl FnOnce(&mut Self) -> Done) -> Done {
        let (cpu_before, memory_before) = used(&mut self.client)?;
        let begun = Instant::now();
        work(self)?;
        let took = begun.elapsed();
        let (cpu, memory) = used(&mut self.client)?;
        let keys = keys as f64;
        writeln!(
            std::io::stdout(),
            "{what:<44} {:>6.2} µs of the server {:>6.2} µs in all {:>7.1} bytes",
            (cpu - cpu_before) * 1e6 / keys,
            took.as_secs_f64() * 1e6 / keys,
            (memory as f64 - memory_before as f64) / keys,
        )?;
        Ok(())
    }

    /// As one would write it without this crate.
    fn set_nx(&mut self, batch: u64) -> Done {
        for first in (0..KEYS).step_by(batch as usize) {
            let mut pipe = redis::pipe();
            for number in first..(first + batch).min(KEYS) {
                let key = format!("dedup:{}", digest(number));
                pipe.cmd("SET").arg(key).arg(1).arg("NX").arg("PX").arg(3_600_000).ignore();
            }
            pipe.exec(&mut self.client)?;
        }
        Ok(())
    }

    fn rows(&mut self, batch: u64, op: impl Fn(u64) -> RowOp<'static>) -> Done {
        for first in (0..KEYS).step_by(batch as usize) {
            let numbers = first..(first + batch).min(KEYS);
            let row = |n| Row { space: "orders", digest: digest(n), op: op(n) };
            let mut rows: Vec<Row<'_>> = numbers.map(row).collect();
            rows.sort_unstable_by_key(|row| row.digest);
            for answer in self.authority.rows(&rows, soon())?.rows {
                answer?;
            }
        }
        Ok(())
    }

    fn chunks(&mut self, digests_a_chunk: u64, parts: u32) -> Done {
        let space = format!("chunks of {digests_a_chunk}");
        let now = Timestamp::from(std::time::SystemTime::now());
        let expires = Timestamp::from_unix_nanos(now.as_unix_nanos() + 3_600_000_000_000);
        let progress =
            Progress { position: 0, complete_since: now, complete_through: now, layout: 1 };
        let request = Acquire { holder: token(0), previous: None, lease: KEEP, initial: progress };
        let epoch = self.authority.acquire(&space, &request, soon())?.epoch;
        let chunk = |number: u64| {
            let first = number * digests_a_chunk;
            let bytes = (first..first + digests_a_chunk).map(|n| *digest(n).as_bytes());
            let bucket = Bucket { slice: 1_764_133_065_000, part: number as u32 % parts };
            Chunk { bucket, number, expires, data: bytes.flatten().collect() }
        };
        let all: Vec<Chunk> = (1..=KEYS / digests_a_chunk).map(chunk).collect();
        for chunks in all.chunks(64) {
            let holder = request.holder;
            let append = Append { space: &space, epoch, holder, lease: KEEP, progress, chunks };
            for answer in self.authority.append(&[append], soon())? {
                answer?;
            }
        }
        Ok(())
    }
}

fn main() -> Done {
    let url = std::env::args().nth(1).ok_or("usage: measure redis://host:port")?;
    let client = redis::Client::open(&*url)?.get_connection()?;
    let authority = RedisAuthority::builder(url).build()?;
    let mut bench = Bench { client, authority };
    let empty = |bench: &mut Bench| redis::cmd("FLUSHALL").exec(&mut bench.client);
    for batch in [1, 16, 256, 4_096] {
        empty(&mut bench)?;
        bench.measure(&format!("SET NX PX, {batch} a pipeline"), KEYS, |b| b.set_nx(batch))?;
    }
    for batch in [1, 16, 256, 4_096] {
        empty(&mut bench)?;
        bench.authority.open("orders", 7, soon())?;
        let observe =
            |salt| move |n: u64| RowOp::Observe { token: token(n ^ salt), keep: KEEP, value: &[] };
        bench.measure(&format!("new, {batch} a call"), KEYS, |b| b.rows(batch, observe(0)))?;
        let other = observe(1 << 40);
        bench.measure(&format!("duplicate, {batch} a call"), KEYS, |b| b.rows(batch, other))?;
        bench.measure(&format!("looked at, {batch} a call"), KEYS, |b| {
            b.rows(batch, |_| RowOp::Look)
        })?;
    }
    for (a_chunk, parts) in [(16, 65_536), (64, 65_536), (256, 65_536), (1_000, 64), (4_000, 64)] {
        empty(&mut bench)?;
        let what = format!("Exclusive, {a_chunk} digests a chunk, {parts} parts");
        bench.measure(&what, KEYS, |b| b.chunks(a_chunk, parts))?;
    }
    empty(&mut bench)?;
    Ok(())
}
