//! What the suite of the library does not try of owners and their chunks.

use std::time::Duration;

use onceonly::Timestamp;
use onceonly::authority::{
    Acquire, Append, Appended, Authority, AuthorityError, Bucket, Chunk, Progress, Result, Token,
};
use onceonly_redis::RedisAuthority;

use crate::asking::{HOUR, SPACE, digests, soon, token};
use crate::server::Server;

fn in_an_hour() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now() + HOUR)
}

fn progress(position: u64) -> Progress {
    let (since, through) = (Timestamp::from_unix_nanos(i64::MIN), Timestamp::from_unix_nanos(7));
    Progress { position, complete_since: since, complete_through: through, layout: u32::MAX }
}

fn acquire(authority: &RedisAuthority) -> Result<(u64, Token)> {
    let holder = token();
    let request = Acquire { holder, previous: None, lease: HOUR, initial: progress(u64::MAX) };
    let acquired = authority.acquire(SPACE, &request, soon())?;
    assert_eq!(acquired.progress.complete_since, progress(0).complete_since);
    Ok((acquired.epoch, holder))
}

fn append(
    authority: &RedisAuthority,
    (epoch, holder): (u64, Token),
    chunks: &[Chunk],
) -> Result<Appended> {
    let append = Append { space: SPACE, epoch, holder, lease: HOUR, progress: progress(7), chunks };
    authority.append(&[append], soon())?.pop().unwrap()
}

/// A failover may lose that an owner was there at all. Then his epoch is given to the next one, and his
/// appends are refused all the same.
#[test]
fn an_owner_that_was_lost_is_refused() {
    let server = Server::start(&[]);
    let (lost, next) = (server.authority(), server.authority());
    let first = acquire(&lost).unwrap();
    assert_eq!(append(&lost, first, &[]).unwrap().before, u64::MAX);
    redis::cmd("DEL").arg("onceonly:{orders}:owner").exec(&mut server.client()).unwrap();
    let second = acquire(&next).unwrap();
    assert_eq!(first.0, second.0);
    let stale = append(&lost, first, &[]);
    assert!(matches!(stale, Err(AuthorityError::StaleEpoch { .. })), "{stale:?}");
    lost.release(SPACE, first.0, first.1, soon()).unwrap();
    assert!(matches!(acquire(&lost), Err(AuthorityError::NotExclusive { .. })));
    append(&next, second, &[]).unwrap();
}

/// The target is 24 bytes of the server's memory a key. A chunk of 128 digests is one of the worse
/// ones: it is just too large for 2 KiB, and takes the next size that the server's allocator has.
#[test]
fn chunks_are_small_and_expire_by_themselves() {
    let server = Server::start(&[]);
    let authority = server.authority();
    let owner = acquire(&authority).unwrap();
    let memory = || {
        let info: String = redis::cmd("INFO").arg("memory").query(&mut server.client()).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let (expires, keys) = (in_an_hour(), digests(4 * 65_536));
    let before = memory();
    for (at, chunks) in keys.chunks(64 * 128).enumerate() {
        let chunks: Vec<Chunk> = chunks
            .chunks(128)
            .enumerate()
            .map(|(part, digests)| {
                let number = (at * 64 + part) as u64 + 1;
                let bucket = Bucket { slice: 1_764_133_065_000, part: number as u32 };
                let data = digests.iter().flat_map(|digest| *digest.as_bytes()).collect();
                Chunk { bucket, number, expires, data }
            })
            .collect();
        append(&authority, owner, &chunks).unwrap();
    }
    let a_key = (memory() - before) as f64 / keys.len() as f64;
    assert!(a_key < 24.0, "{a_key} bytes a key");
    let slices = authority.slices(SPACE, soon()).unwrap();
    assert_eq!(slices.len(), 1);
    assert!(slices[0].bytes >= 64 * 65_536 && slices[0].bytes < 65 * 65_536);
    let mut command = redis::cmd("PTTL");
    let key = "onceonly:{orders}:chunks:1764133065000:9";
    let left: u64 = command.arg(key).query(&mut server.client()).unwrap();
    assert!(left > 3_500_000 && left <= 3_600_001, "{left}");
}

/// A full server takes all of an append or nothing.
#[test]
fn a_full_server_refuses_a_whole_append() {
    let server = Server::start(&["--maxmemory", "8mb"]);
    let authority = server.authority();
    let owner = acquire(&authority).unwrap();
    let mut last = 0;
    let full = loop {
        let bucket = Bucket { slice: 1_000, part: 0 };
        let chunk =
            |number| Chunk { bucket, number, expires: in_an_hour(), data: vec![7; 300_000] };
        match append(&authority, owner, &[chunk(last + 1), chunk(last + 2)]) {
            Ok(_) => last += 2,
            Err(error) => break error,
        }
    };
    assert!(full.is_transient(), "{full}");
    let bucket = Bucket { slice: 1_000, part: 0 };
    let found = authority.read(SPACE, &[bucket], soon()).unwrap();
    assert_eq!(found[0].len() as u64, last);
    std::thread::sleep(Duration::from_millis(10));
    // Its end can still be said.
    let released = authority.release(SPACE, owner.0, owner.1, soon());
    assert!(released.is_ok() || released.is_err_and(|error| error.is_transient()));
}
