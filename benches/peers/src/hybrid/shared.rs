//! Keys that several processes may see: the server decides each one, and what is asked at the same time
//! goes in one round trip. Beside as many threads that ask it alone, one key a round trip.

use std::time::Instant;

use onceonly::{Dedup, Ownership};

use super::sides::{Asked, Kind, Server, observe};
use super::{PER_MILLE, SEED, Way, check, per_key, table};
use crate::args::{Args, Result};
use crate::contestants::digest;
use crate::contestants::stores::Tables;
use crate::keys::{Chunk, Key, Repeat, Stream};
use crate::report::say;

pub(crate) fn run<T: Tables>(mut args: Args, kind: Kind) -> Result<()> {
    let live = args.count("live", 1_000_000)?;
    let rounds = args.count("rounds", 8)?;
    let keys = args.count("keys", 16_384)? as usize;
    let threads = args.count("threads", 8)? as usize;
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let (ours, plain) = (Server::<T>::start(kind, &dir)?, Server::<T>::start(kind, &dir)?);
    let store_dir = tempfile::Builder::new().prefix("store-").tempdir_in(&dir)?;
    let store = ours.stores(live, Ownership::Shared)?.open(store_dir.path())?;
    let mut asking: Vec<Alone> =
        (0..threads).map(|_| Alone::connect(kind, &plain.url()?)).collect::<Result<_>>()?;
    let mut streams = [0, 1].map(|_| Stream::new(SEED, live, PER_MILLE, Repeat::EarlierChunks));
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    let mut chunk = Chunk::default();
    for round in 0..rounds + 1 {
        for turn in (0..3).map(|turn| (turn + round as usize) % 3) {
            streams[turn / 2].fill(keys, &mut chunk);
            let begun = Instant::now();
            let answers = match turn {
                0 => by_threads(&chunk.keys, &mut vec![&store; threads], |s, k| observe(s, k, 1)),
                1 => by_threads(&chunk.keys, &mut vec![&store; threads], |s, k| observe(s, k, 100)),
                _ => by_threads(&chunk.keys, &mut asking, |alone, keys| alone.observe(keys)),
            };
            let time = per_key(begun, chunk.keys.len());
            check(&chunk, &answers?)?;
            // The first round warms up.
            if round > 0 {
                took[turn].push(time);
            }
        }
    }
    let [one, batched, alone] = took;
    let ways = [
        Way { name: format!("onceonly, {threads} threads, one at a time"), took: one },
        Way { name: format!("onceonly, {threads} threads, batches of 100"), took: batched },
        Way { name: format!("alone, {threads} threads, one at a time"), took: alone },
    ];
    let bytes = [
        ours.bytes()? / streams[0].new_keys() as f64,
        plain.bytes()? / streams[1].new_keys() as f64,
    ];
    table(&ways, &[bytes[0], bytes[0], bytes[1]], kind, live).show(csv.as_deref())?;
    told(&store)
}

fn told(store: &Dedup) -> Result<()> {
    let asked = Asked::of(store);
    let here = store.stats().authority.unwrap_or_default().answered_here;
    say(format_args!(
        "    {} keys asked for in {} calls, {:.1} each; {here} duplicates answered here",
        asked.looked_up,
        asked.calls,
        asked.looked_up as f64 / asked.calls.max(1) as f64
    ))
}

/// Each thread a share of the keys; answers in the keys' order.
fn by_threads<S: Send>(
    keys: &[Key],
    sides: &mut [S],
    observe: impl Fn(&mut S, &[Key]) -> Result<Vec<bool>> + Sync,
) -> Result<Vec<bool>> {
    let share = keys.len().div_ceil(sides.len());
    let observe = &observe;
    std::thread::scope(|scope| {
        let work = |(side, keys): (_, &[Key])| {
            let keys = keys.to_vec();
            scope.spawn(move || observe(side, &keys).map_err(|error| error.to_string()))
        };
        let threads: Vec<_> = sides.iter_mut().zip(keys.chunks(share)).map(work).collect();
        let mut answers = Vec::with_capacity(keys.len());
        for thread in threads {
            answers.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(answers)
    })
}

/// A connection of a thread that asks for one key at a time.
enum Alone {
    Redis(redis::Connection),
    Postgres(Box<postgres::Client>, postgres::Statement),
}

impl Alone {
    fn connect(kind: Kind, url: &str) -> Result<Self> {
        if kind == Kind::Redis {
            return Ok(Alone::Redis(redis::Client::open(url)?.get_connection()?));
        }
        let mut client = postgres::Client::connect(url, postgres::NoTls)?;
        let insert = client.prepare(
            "INSERT INTO a VALUES (encode($1::bytea, 'hex')::uuid) ON CONFLICT DO NOTHING",
        )?;
        Ok(Alone::Postgres(Box::new(client), insert))
    }

    fn observe(&mut self, keys: &[Key]) -> Result<Vec<bool>> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            let digest = digest(key).to_be_bytes();
            answers.push(match self {
                Alone::Redis(connection) => {
                    let mut set = redis::cmd("SET");
                    set.arg(&digest).arg(b"1").arg("NX").arg("EX").arg(86_400);
                    set.query::<Option<String>>(connection)?.is_none()
                }
                Alone::Postgres(client, insert) => {
                    client.execute(&*insert, &[&digest.as_slice()])? == 0
                }
            });
        }
        Ok(answers)
    }
}
