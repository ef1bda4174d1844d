//! Keys that something else has marked before a store decided: all that wait are asked for in one call.

use std::sync::Arc;
use std::time::Instant;

use super::call::Worker;
use super::own::Answer;
use super::space::Space;
use super::{Failure, Link, Request};
use crate::authority::AuthorityError;

/// Keys of one caller.
pub(super) struct LegacyAsk {
    space: Arc<Space>,
    keys: Vec<Box<[u8]>>,
    /// They are forgotten; else looked for.
    forget: bool,
    reply: Answer<Vec<bool>>,
}

impl Link {
    /// Whether the authority knows keys of before.
    pub(crate) fn has_legacy(&self) -> bool {
        self.gatherer.authority.legacy().is_some()
    }

    /// Which of the keys were marked before, one answer each.
    pub(crate) fn legacy(&self, keys: Vec<Box<[u8]>>, forget: bool) -> Result<Vec<bool>, Failure> {
        let space = Arc::clone(&self.space);
        self.demand(|reply| Request::Legacy(LegacyAsk { space, keys, forget, reply }))
    }
}

impl Worker {
    /// One call for all that wait to look, and one for all that wait to forget.
    pub(super) fn ask_legacy(&mut self) {
        if self.legacy.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.legacy);
        let (forgets, looks): (Vec<_>, Vec<_>) = all.into_iter().partition(|ask| ask.forget);
        for (asks, forget) in [(forgets, true), (looks, false)] {
            if asks.is_empty() {
                continue;
            }
            match self.legacy_of(&asks, forget) {
                Ok(marked) => {
                    let mut marked = marked.into_iter();
                    for ask in asks {
                        let of_ask = marked.by_ref().take(ask.keys.len()).collect();
                        let _ = ask.reply.try_send(Ok(of_ask));
                    }
                }
                Err(failure) => {
                    for ask in asks {
                        ask.space.counters.count_failed();
                        let _ = ask.reply.try_send(Err(failure.clone()));
                    }
                }
            }
        }
    }

    fn legacy_of(&self, asks: &[LegacyAsk], forget: bool) -> Result<Vec<bool>, Failure> {
        self.admit()?;
        let keys: Vec<&[u8]> = asks.iter().flat_map(|ask| &ask.keys).map(|key| &**key).collect();
        let deadline = asks.iter().map(|ask| ask.space.terms.deadline).min().unwrap_or_default();
        let deadline = Instant::now() + deadline;
        let told = self.call(|authority| {
            let none = || AuthorityError::refused("its client knows no keys of before");
            let legacy = authority.legacy().ok_or_else(none)?;
            let marked = match forget {
                true => legacy.forget(&keys, deadline)?,
                false => legacy.are_marked(&keys, deadline)?,
            };
            match marked.len() == keys.len() {
                true => Ok(marked),
                false => Err(AuthorityError::undecided("its client answered for too few keys")),
            }
        });
        for ask in asks {
            ask.space.counters.count_legacy(ask.keys.len());
        }
        told.map_err(Failure::new)
    }
}
