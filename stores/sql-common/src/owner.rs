//! The owner record of a space: who gets it.

use std::time::Duration;

use onceonly::Timestamp;
use onceonly::authority::{Acquire, Acquired, AuthorityError, Progress, Result, Server, Token};

use crate::time::{span, unsigned, until};

/// The owner record, as it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// One higher with each owner.
    pub epoch: i64,
    /// Who owns the space.
    pub holder: [u8; 16],
    /// The owner before.
    pub last: Option<[u8; 16]>,
    /// Whether the owner before had released the space.
    pub last_released: bool,
    /// In microseconds since the Unix epoch.
    pub lease_until: i64,
    /// The owner has released the space.
    pub released: bool,
    /// The number of its last chunk.
    pub position: i64,
    /// In nanoseconds since the Unix epoch.
    pub complete_since: i64,
    /// In nanoseconds since the Unix epoch.
    pub complete_through: i64,
    /// The engine's.
    pub layout: u32,
}

/// What becomes of a request for a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The record that is to be written, and to be answered.
    Granted(Owner),
    /// Another owner's lease runs for so long.
    Held(Duration),
}

/// Decides about a request, with the record locked.
#[must_use]
pub fn acquire(owner: Option<Owner>, request: &Acquire, now: i64) -> Decision {
    let lease_until = until(now, request.lease);
    let Some(owner) = owner else {
        return Decision::Granted(Owner {
            epoch: 1,
            holder: *request.holder.as_bytes(),
            last: None,
            last_released: false,
            lease_until,
            released: false,
            position: request.initial.position.cast_signed(),
            complete_since: request.initial.complete_since.as_unix_nanos(),
            complete_through: request.initial.complete_through.as_unix_nanos(),
            layout: request.initial.layout,
        });
    };
    if owner.holder == *request.holder.as_bytes() {
        // The reply was lost. Whoever asks goes on writing, whatever he has said before.
        return Decision::Granted(Owner { lease_until, released: false, ..owner });
    }
    let follows = request.previous.is_some_and(|previous| *previous.as_bytes() == owner.holder);
    if now < owner.lease_until && !follows {
        return Decision::Held(span(owner.lease_until - now));
    }
    Decision::Granted(Owner {
        epoch: owner.epoch + 1,
        holder: *request.holder.as_bytes(),
        last: Some(owner.holder),
        last_released: owner.released,
        lease_until,
        released: false,
        ..owner
    })
}

impl Owner {
    /// Whether this is the owner with that epoch and name.
    #[must_use]
    pub fn is(&self, epoch: u64, holder: Token) -> bool {
        self.epoch == epoch.cast_signed() && self.holder == *holder.as_bytes()
    }

    /// How far the owner has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            position: unsigned(self.position),
            complete_since: Timestamp::from_unix_nanos(self.complete_since),
            complete_through: Timestamp::from_unix_nanos(self.complete_through),
            layout: self.layout,
        }
    }
}

impl Decision {
    /// The answer to the request.
    ///
    /// # Errors
    /// [`AuthorityError::NotExclusive`].
    pub fn answer(self, server: Server) -> Result<Acquired> {
        match self {
            Decision::Held(lease_left) => Err(AuthorityError::NotExclusive { lease_left }),
            Decision::Granted(owner) => Ok(Acquired {
                server,
                epoch: unsigned(owner.epoch),
                last: owner.last.map(Token::from_bytes),
                released: owner.last_released,
                progress: owner.progress(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(holder: u8, previous: Option<u8>) -> Acquire {
        let time = Timestamp::from_unix_millis(0);
        let (complete_since, complete_through) = (time, time);
        let initial = Progress { position: 0, complete_since, complete_through, layout: 0 };
        let token = |number| Token::from_bytes([number; 16]);
        let (holder, previous) = (token(holder), previous.map(token));
        Acquire { holder, previous, lease: Duration::from_secs(1), initial }
    }

    fn granted(decision: Decision) -> Owner {
        match decision {
            Decision::Granted(owner) => owner,
            Decision::Held(left) => panic!("held for {left:?}"),
        }
    }

    #[test]
    fn an_owner_is_followed_when_it_is_over_dead_or_gone() {
        let first = granted(acquire(None, &request(1, None), 0));
        assert_eq!((first.epoch, first.last), (1, None));
        let held = acquire(Some(first), &request(2, Some(3)), 999_999);
        assert!(matches!(held, Decision::Held(left) if left <= Duration::from_millis(1)));
        let over = granted(acquire(Some(first), &request(2, None), 1_000_001));
        assert_eq!((over.epoch, over.last, over.last_released), (2, Some([1; 16]), false));
        let dead = granted(acquire(Some(first), &request(2, Some(1)), 1));
        assert_eq!((dead.epoch, dead.last), (2, Some([1; 16])));
        let gone = Owner { lease_until: 0, released: true, ..first };
        let next = granted(acquire(Some(gone), &request(2, None), 1));
        assert_eq!((next.epoch, next.last_released, next.released), (2, true, false));
        let again = granted(acquire(Some(gone), &request(1, None), 1));
        assert_eq!((again.epoch, again.released), (1, false));
    }
}
