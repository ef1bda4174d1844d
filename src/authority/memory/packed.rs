//! The owner record and the chunks.

use std::time::Duration;

use super::{Space, same};
use crate::authority::{
    Acquire, Acquired, Append, Appended, AuthorityError, Bucket, Progress, Result, Server,
    SliceInfo, StoredChunk, Token,
};
use crate::time::{Timestamp, nanos};

/// The owner record.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    epoch: u64,
    holder: Token,
    /// The owner before, and whether it had released the space.
    last: Option<Token>,
    last_released: bool,
    lease_until_ns: i64,
    released: bool,
    progress: Progress,
}

#[derive(Clone, Debug)]
pub(super) struct Kept {
    number: u64,
    expires_ns: i64,
    pub(super) data: Vec<u8>,
}

pub(super) fn acquire(
    owner: &mut Option<Owner>,
    request: &Acquire,
    server: Server,
) -> Result<Acquired> {
    let now_ns = server.time.as_unix_nanos();
    let lease_until_ns = now_ns.saturating_add(nanos(request.lease));
    let owner = match owner {
        Some(owner) if owner.holder == request.holder => {
            (owner.lease_until_ns, owner.released) = (lease_until_ns, false);
            owner
        }
        Some(owner) => {
            let left = owner.lease_until_ns.saturating_sub(now_ns);
            if left > 0 && !same(request.previous, owner.holder) {
                let lease_left = Duration::from_nanos(left.unsigned_abs());
                return Err(AuthorityError::NotExclusive { lease_left });
            }
            *owner = Owner {
                epoch: owner.epoch + 1,
                holder: request.holder,
                last: Some(owner.holder),
                last_released: owner.released,
                lease_until_ns,
                released: false,
                progress: owner.progress,
            };
            owner
        }
        None => owner.insert(Owner {
            epoch: 1,
            holder: request.holder,
            last: None,
            last_released: false,
            lease_until_ns,
            released: false,
            progress: request.initial,
        }),
    };
    Ok(Acquired {
        server,
        epoch: owner.epoch,
        last: owner.last,
        released: owner.last_released,
        progress: owner.progress,
    })
}

pub(super) fn release(owner: &mut Option<Owner>, epoch: u64, holder: Token) {
    if let Some(owner) = owner.as_mut().filter(|owner| owner.is(epoch, holder)) {
        (owner.lease_until_ns, owner.released) = (i64::MIN, true);
    }
}

impl Owner {
    fn is(&self, epoch: u64, holder: Token) -> bool {
        self.epoch == epoch && self.holder == holder
    }
}

impl Space {
    pub(super) fn append(&mut self, append: &Append<'_>, server: Server) -> Result<Appended> {
        let stale = AuthorityError::StaleEpoch { epoch: append.epoch };
        let owner = self.owner.as_mut().filter(|owner| owner.is(append.epoch, append.holder));
        let owner = owner.ok_or(stale)?;
        let before = owner.progress.position;
        let now_ns = server.time.as_unix_nanos();
        (owner.progress, owner.released) = (append.progress, false);
        owner.lease_until_ns = now_ns.saturating_add(nanos(append.lease));
        for chunk in append.chunks {
            let kept = self.chunks.entry(chunk.bucket).or_default();
            if kept.iter().all(|kept| kept.number != chunk.number) {
                kept.push(Kept {
                    number: chunk.number,
                    expires_ns: chunk.expires.as_unix_nanos(),
                    data: chunk.data.clone(),
                });
            }
        }
        Ok(Appended { server, before })
    }

    /// Forgets chunks that are over.
    fn tidy(&mut self, now_ns: i64) {
        self.chunks.retain(|_, kept| {
            kept.retain(|kept| kept.expires_ns > now_ns);
            !kept.is_empty()
        });
    }

    pub(super) fn slices(&mut self, now_ns: i64) -> Vec<SliceInfo> {
        self.tidy(now_ns);
        let mut slices: Vec<SliceInfo> = Vec::new();
        // Buckets are in order, so those of one slice follow each other.
        for (bucket, kept) in &self.chunks {
            if slices.last().is_none_or(|last| last.slice != bucket.slice) {
                let expires = Timestamp::from_unix_nanos(i64::MIN);
                slices.push(SliceInfo { slice: bucket.slice, expires, bytes: 0 });
            }
            let Some(info) = slices.last_mut() else { continue };
            for kept in kept {
                info.expires = info.expires.max(Timestamp::from_unix_nanos(kept.expires_ns));
                info.bytes += kept.data.len() as u64;
            }
        }
        slices
    }

    pub(super) fn read(&self, bucket: &Bucket, now_ns: i64) -> Vec<StoredChunk> {
        let kept = self.chunks.get(bucket).map_or(&[][..], Vec::as_slice);
        let live = kept.iter().filter(|kept| kept.expires_ns > now_ns);
        live.map(|kept| StoredChunk { number: kept.number, data: kept.data.clone() }).collect()
    }
}
