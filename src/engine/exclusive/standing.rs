//! Whether this store still is the owner.
//!
//! The lease is counted from before it was asked for, by boot time. When it is over, nothing is answered
//! until the server has said that nobody followed: two owners would both say `New`.

use std::sync::atomic::Ordering::{Acquire as Acq, Release};

use super::{FOLLOWED, IN_DOUBT, MOST_DOUBTS, OWNER, Owner};
use crate::authority::{Acquire, Acquired, AuthorityError};
use crate::engine::shared::span;
use crate::engine::{CLOCK_TIME, Engine, OWNED_TIME, Window};
use crate::error::Result;
use crate::format::manifest::Hole;
use crate::gather::Failure;

const UNREAD_KEYS_LOST: &str =
    "the authority may have lost keys of the owner before that were not read yet";

impl Owner {
    pub(super) fn is_lease_over(&self, now_ns: i64) -> bool {
        now_ns >= self.lease_until_ns.load(Acq) || self.standing.load(Acq) != OWNER
    }

    /// Another owner has followed, for sure.
    pub(super) fn set_followed(&self) {
        self.standing.store(FOLLOWED, Release);
    }

    pub(super) fn set_in_doubt(&self) {
        // From this there is no way back.
        if self.standing.load(Acq) != FOLLOWED {
            self.standing.store(IN_DOUBT, Release);
        }
    }

    /// The server has answered as it does to the owner, to what was asked then.
    pub(super) fn is_heard(&self, asked_ns: i64) {
        self.lease_until_ns.fetch_max(asked_ns.saturating_add(self.lease_ns), Release);
        if self.standing.load(Acq) != FOLLOWED {
            self.standing.store(OWNER, Release);
        }
    }

    /// Most of the lease is left; less is a reason to be heard of.
    pub(super) fn is_lease_fresh(&self, now_ns: i64) -> bool {
        now_ns.saturating_add(self.lease_ns / 3 * 2) < self.lease_until_ns.load(Acq)
    }
}

impl Engine {
    /// When a call has to look again: when the catalog is out of date, or the lease over.
    pub(in crate::engine) fn set_due(&self, valid_until_ns: i64) {
        let mut due_ns = valid_until_ns;
        if let Some(owner) = self.owned.get()
            && self.origin.mark() == CLOCK_TIME
        {
            due_ns = due_ns.min(owner.lease_until_ns.load(Acq));
        }
        self.time.set_due(due_ns);
    }

    /// Notes whether calls may be answered from here alone.
    pub(super) fn turn_mark(&self, owner: &Owner) {
        let window = self.window.write();
        self.turn_mark_in(owner, &window);
    }

    /// The window's lock keeps this and the beginning of slices apart.
    fn turn_mark_in(&self, owner: &Owner, window: &Window) {
        let alone = !owner.is_lease_over(self.time.now()) && owner.foreign.is_complete();
        owner.seat.set(if alone { CLOCK_TIME } else { OWNED_TIME });
        self.set_due(window.catalog.valid_until_ns);
    }

    /// A call found that something is due: maybe the lease.
    pub(in crate::engine) fn look_at_lease(&self, window: &Window) {
        if let Some(owner) = self.owned.get() {
            self.turn_mark_in(owner, window);
        }
    }

    /// Makes sure that this store is the owner.
    pub(super) fn hold(&self, owner: &Owner) -> Result<()> {
        if !owner.is_lease_over(self.time.now()) {
            return Ok(());
        }
        let _one = owner.renewing.lock();
        // A call that is refused is followed by one that finds out why.
        for _ in 0..MOST_DOUBTS {
            if owner.standing.load(Acq) == FOLLOWED {
                return Err(owner.followed());
            }
            if !owner.is_lease_over(self.time.now()) {
                return Ok(());
            }
            match owner.link.write() {
                Err(failure) if !failure.is_stale() => return Err(owner.error(&failure)),
                Err(_) | Ok(()) => {}
            }
        }
        match owner.standing.load(Acq) {
            FOLLOWED => Err(owner.followed()),
            _ if !owner.is_lease_over(self.time.now()) => Ok(()),
            _ => Err(owner.error(&Failure::waited_too_long())),
        }
    }

    /// An append was refused, and the server says which it is. Another owner has followed, unless it is
    /// another server: it may have lost the owner record.
    pub(in crate::engine) fn look_at_server(&self, owner: &Owner) {
        if owner.standing.load(Acq) != IN_DOUBT {
            return;
        }
        if !owner.writing.lock().is_of_another_server() {
            owner.set_followed();
            self.turn_mark(owner);
        }
    }

    /// The server may have lost what was written to it, and who the owner is: the space is asked for again,
    /// in the same name. Also where it seems to be this store's still: on a server that came up empty
    /// another owner may have the same epoch.
    pub(in crate::engine) fn server_lost(&self, owner: &Owner, incarnation: u64) {
        let mut writing = owner.writing.lock();
        writing.lose_server(incarnation);
        owner.set_in_doubt();
        let initial = writing.progress();
        let lease = span(owner.lease_ns);
        writing.ask_again(Acquire { holder: owner.holder, previous: None, lease, initial });
        drop(writing);
        self.turn_mark(owner);
        if !owner.foreign.is_complete()
            && let Err(error) = self.note_lost_keys()
        {
            self.note_background_error(&error);
        }
    }

    /// What was not read yet of the owner before may be gone.
    fn note_lost_keys(&self) -> Result<()> {
        let (from_ns, to_ns) = (i64::MIN, self.time.now().saturating_add(1));
        self.ledger.update(|manifest| {
            let reason = UNREAD_KEYS_LOST.to_owned();
            manifest.holes.push(Hole { from_ns, to_ns, reason });
        })
    }

    /// What became of asking for the space again.
    pub(in crate::engine) fn was_acquired(&self, owner: &Owner, answer: Result<Acquired, Failure>) {
        let mut writing = owner.writing.lock();
        match answer {
            // A server with a later owner than the one before this store had others since.
            Ok(acquired) if acquired.last.is_none() || acquired.last == writing.last() => {
                let asked_ns = writing.begin_epoch(&acquired);
                owner.is_heard(asked_ns);
            }
            Ok(_) => owner.set_followed(),
            Err(failure) => {
                if let AuthorityError::NotExclusive { .. } = &*failure.error {
                    owner.set_followed();
                }
                self.note_background_error(&owner.error(&failure));
            }
        }
        drop(writing);
        self.turn_mark(owner);
    }

    /// Nothing is vouched for by a store that is not the owner.
    pub(in crate::engine) fn is_owner_gone(&self) -> bool {
        self.owned.get().is_some_and(|owner| owner.standing.load(Acq) == FOLLOWED)
    }
}
