//! What a store hears of its authority, whoever else writes there; and what it notes of an outage.

use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use super::Engine;
use super::shared::NOT_KNOWN;
use crate::authority::{Acquired, Appended, Opened};
use crate::config::OnOutage;
use crate::error::Result;
use crate::format::manifest::Hole;
use crate::gather::{Failure, Outgoing, Want, Watcher};
use crate::shadow::LetThrough;
use crate::sync::Mutex;
use crate::telemetry::events;

/// A hole is written this far ahead, so that not every assumption writes the manifest.
const HOLE_AHEAD_NS: i64 = 5_000_000_000;
const ASSUMED: &str = "the authority could not be asked: keys were assumed to be new";

impl Engine {
    /// What is answered while the authority cannot be asked.
    pub(crate) fn on_outage(&self) -> OnOutage {
        let shared = self.config.shared.as_ref();
        let terms = shared.or(self.config.owned.as_ref().map(|owned| &owned.terms));
        terms.map_or(OnOutage::Fail, |terms| terms.on_outage)
    }

    pub(crate) fn is_shadow(&self) -> bool {
        self.config.shadow
    }

    /// What was let through in shadow mode.
    pub(crate) fn let_through(&self) -> &LetThrough {
        &self.let_through
    }

    /// A token for who holds nothing, greater than those that were given out before.
    pub(crate) fn ghost_token(&self) -> u64 {
        match self.shared() {
            // As authorities make theirs.
            Some(_) => self.time.now().max(0).unsigned_abs() / 1_000,
            None => self.claims.token(),
        }
    }

    /// Notes that keys are assumed to be new from now on; the hole reaches to `until` already.
    pub(super) fn note_assumption(&self, until: &Mutex<i64>) -> Result<()> {
        let now_ns = self.time.now();
        let mut until_ns = until.lock();
        if now_ns < *until_ns {
            return Ok(());
        }
        let to_ns = now_ns.saturating_add(HOLE_AHEAD_NS);
        let begun_ns = *until_ns;
        if now_ns >= begun_ns.saturating_add(HOLE_AHEAD_NS) {
            events::assuming_new(&self.path());
        }
        self.ledger.update(|manifest| {
            let is_it = |hole: &&mut Hole| hole.to_ns == begun_ns && hole.reason == ASSUMED;
            let goes_on = now_ns < begun_ns.saturating_add(HOLE_AHEAD_NS);
            match manifest.holes.iter_mut().find(is_it).filter(|_| goes_on) {
                Some(hole) => hole.to_ns = to_ns,
                None => {
                    let (from_ns, reason) = (now_ns, ASSUMED.to_owned());
                    manifest.holes.push(Hole { from_ns, to_ns, reason });
                }
            }
        })?;
        *until_ns = to_ns;
        Ok(())
    }
}

impl Watcher for Engine {
    fn forgotten(&self, digests: &[crate::authority::Digest]) -> bool {
        // A store that is closed answers nothing, and reads all of it when it is opened again.
        if self.is_closed() {
            return true;
        }
        let forgotten = self.forget_elsewhere(digests);
        forgotten.inspect_err(|error| self.note_background_error(error)).is_ok()
    }

    fn lost(&self, incarnation: u64) {
        if let Some(shared) = self.shared() {
            // Until it says since when it knows everything, nothing is vouched for.
            shared.complete_since_ns.store(NOT_KNOWN, Release);
            self.forget_again(shared);
        }
        if let Some(owned) = self.owned.get() {
            self.server_lost(owned, incarnation);
        }
    }

    fn opened(&self, opened: &Opened) {
        if let Some(owned) = self.owned.get() {
            self.look_at_server(owned);
        }
        let Some(shared) = self.shared() else { return };
        let server_ns = opened.server.time.as_unix_nanos();
        let ago_ns = server_ns.saturating_sub(opened.complete_since.as_unix_nanos()).max(0);
        shared.complete_since_ns.store(self.time.now().saturating_sub(ago_ns), Release);
    }

    fn wants(&self, heard: bool) -> Want {
        self.owned.get().map_or(Want::Nothing, |owned| self.what_to_write(owned, heard))
    }

    fn wrote(&self, outgoing: &Arc<Outgoing>, answer: Result<Appended, Failure>) -> bool {
        self.owned.get().is_some_and(|owned| self.was_written(owned, outgoing, answer))
    }

    fn acquired(&self, answer: Result<Acquired, Failure>) {
        if let Some(owned) = self.owned.get() {
            self.was_acquired(owned, answer);
        }
    }
}
