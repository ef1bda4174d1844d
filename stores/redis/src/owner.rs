//! `Exclusive`: the owner, what he appends, and what the next one reads.

use std::time::{Duration, Instant};

use onceonly::Timestamp;
use onceonly::authority::{
    Acquire, Acquired, Append, Appended, AuthorityError, Bucket, Chunk, Progress, Result, Server,
    SliceInfo, StoredChunk, Token,
};
use redis::Value;

use crate::authority::RedisAuthority;
use crate::exchange::Exchanged;
use crate::keys::SpaceKeys;
use crate::reply::{Reply, unexpected};
use crate::script::{ACQUIRE, APPEND, Call, RELEASE, SLICES};
use crate::sending::micros;

/// Bytes before the data of a chunk: when it is over, in milliseconds.
const HEAD: usize = 8;

pub(crate) fn acquire(
    authority: &RedisAuthority,
    space: &str,
    request: &Acquire,
    deadline: Instant,
) -> Result<Acquired> {
    let keys = authority.keys.space(space);
    let mut call = Call::script(keys.slot(), &ACQUIRE, [keys.owner()].iter());
    call.arg(request.holder.as_bytes());
    call.arg(request.previous.as_ref().map_or(&[][..], |token| token.as_bytes()));
    call.number(micros(request.lease));
    push_progress(&mut call, &request.initial);
    let (mut reply, incarnation) = authority.one(call, deadline)?;
    let server = Server { time: reply.moment()?, incarnation };
    if reply.number::<i64>()? == 0 {
        let lease_left = Duration::from_micros(reply.number()?);
        return Err(AuthorityError::NotExclusive { lease_left });
    }
    let epoch = reply.number()?;
    let last = match &reply.bytes()?[..] {
        [] => None,
        bytes => Some(Token::from_bytes(bytes.try_into().map_err(|_| unexpected())?)),
    };
    let released = reply.number::<i64>()? == 1;
    let progress = Progress {
        position: reply.number()?,
        complete_since: Timestamp::from_unix_nanos(reply.number()?),
        complete_through: Timestamp::from_unix_nanos(reply.number()?),
        layout: reply.number()?,
    };
    Ok(Acquired { server, epoch, last, released, progress })
}

/// As text: a script's numbers are not exact beyond 53 bits.
fn push_progress(call: &mut Call, progress: &Progress) {
    call.number(progress.position);
    call.arg(progress.complete_since.as_unix_nanos().to_string());
    call.arg(progress.complete_through.as_unix_nanos().to_string());
    call.number(progress.layout);
}

pub(crate) fn append(
    authority: &RedisAuthority,
    appends: &[Append<'_>],
    deadline: Instant,
) -> Result<Vec<Result<Appended>>> {
    let calls: Vec<Call> = appends.iter().map(|append| call_for(authority, append)).collect();
    let Exchanged { told, incarnation } = authority.fleet.exchange(&calls, deadline);
    let answers = told.into_iter().zip(appends).map(|(told, append)| {
        let mut reply = Reply::new(told.map_err(|failed| failed.error)?)?;
        let time = reply.moment()?;
        if reply.number::<i64>()? == 0 {
            return Err(AuthorityError::StaleEpoch { epoch: append.epoch });
        }
        Ok(Appended { server: Server { time, incarnation }, before: reply.number()? })
    });
    let mut answers: Vec<Result<Appended>> = answers.collect();
    let is_stale =
        |answer: &Result<Appended>| matches!(answer, Err(AuthorityError::StaleEpoch { .. }));
    // The error of the only append is that of the call.
    if answers.len() == 1 && answers.iter().all(|answer| answer.is_err() && !is_stale(answer)) {
        return answers.remove(0).map(|_| Vec::new());
    }
    Ok(answers)
}

fn call_for(authority: &RedisAuthority, append: &Append<'_>) -> Call {
    let keys = authority.keys.space(append.space);
    let mut buckets: Vec<Bucket> = append.chunks.iter().map(|chunk| chunk.bucket).collect();
    buckets.sort_unstable();
    buckets.dedup();
    let mut names = vec![keys.owner(), keys.slices()];
    names.extend(buckets.iter().map(|bucket| keys.bucket(*bucket)));
    let mut call = Call::script(keys.slot(), &APPEND, names.iter());
    call.number(append.epoch).arg(append.holder.as_bytes());
    call.number(micros(append.lease));
    push_progress(&mut call, &append.progress);
    for chunk in append.chunks {
        let place = buckets.partition_point(|bucket| *bucket < chunk.bucket);
        let expires_ms = millis_up(chunk.expires);
        call.number(place as u64 + 1).number(chunk.bucket.slice).number(expires_ms);
        call.number(chunk.number).arg(with_head(chunk, expires_ms));
    }
    call
}

fn with_head(chunk: &Chunk, expires_ms: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + chunk.data.len());
    bytes.extend_from_slice(&expires_ms.to_be_bytes());
    bytes.extend_from_slice(&chunk.data);
    bytes
}

/// Rounded up: until then it is there.
fn millis_up(moment: Timestamp) -> u64 {
    let nanos = moment.as_unix_nanos().max(0).unsigned_abs();
    nanos.div_ceil(1_000_000)
}

pub(crate) fn release(
    authority: &RedisAuthority,
    space: &str,
    (epoch, holder): (u64, Token),
    deadline: Instant,
) -> Result<()> {
    let keys = authority.keys.space(space);
    let mut call = Call::script(keys.slot(), &RELEASE, [keys.owner()].iter());
    call.number(epoch).arg(holder.as_bytes());
    authority.one(call, deadline).map(drop)
}

pub(crate) fn slices(
    authority: &RedisAuthority,
    space: &str,
    deadline: Instant,
) -> Result<Vec<SliceInfo>> {
    let keys = authority.keys.space(space);
    let call = Call::script(keys.slot(), &SLICES, [keys.slices()].iter());
    let (mut reply, _) = authority.one(call, deadline)?;
    reply.moment()?;
    let mut slices = Vec::new();
    while !reply.is_empty() {
        slices.push(SliceInfo {
            slice: reply.number()?,
            expires: Timestamp::from_unix_millis(reply.number()?),
            bytes: reply.number()?,
        });
    }
    Ok(slices)
}

pub(crate) fn read(
    authority: &RedisAuthority,
    space: &str,
    buckets: &[Bucket],
    deadline: Instant,
) -> Result<Vec<Vec<StoredChunk>>> {
    let keys: SpaceKeys = authority.keys.space(space);
    let slot = keys.slot();
    // Not by a script, which would copy all of it once more.
    let mut calls = vec![Call::plain(slot, &["TIME"])];
    calls.extend(buckets.iter().map(|bucket| {
        let key = keys.bucket(*bucket);
        Call::plain(slot, &["HGETALL", &key])
    }));
    let mut told = authority.fleet.exchange(&calls, deadline).told.into_iter();
    let mut next = || match told.next() {
        Some(told) => Reply::new(told.map_err(|failed| failed.error)?),
        None => Err(unexpected()),
    };
    let now_ms = crate::authority::time_of(next()?)?.as_unix_millis().max(0).unsigned_abs();
    buckets.iter().map(|_| chunks(next()?, now_ms)).collect()
}

/// The chunks of a bucket that are not over.
fn chunks(mut reply: Reply, now_ms: u64) -> Result<Vec<StoredChunk>> {
    let mut chunks = Vec::new();
    while !reply.is_empty() {
        let number = reply.number()?;
        let Value::BulkString(mut data) = reply.value()? else { return Err(unexpected()) };
        let Some(head) = data.first_chunk::<HEAD>() else {
            return Err(AuthorityError::refused(format!("chunk {number} is cut off")));
        };
        if u64::from_be_bytes(*head) > now_ms {
            data.drain(..HEAD);
            chunks.push(StoredChunk { number, data });
        }
    }
    Ok(chunks)
}
