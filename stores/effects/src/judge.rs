//! Whether every message was booked once.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use fastrand::Rng;
use onceonly::Claim;

use crate::bank::{ACCOUNTS, Bank};
use crate::store;

/// What a message is worth.
pub(crate) fn amount(seed: u64, message: i64) -> i64 {
    1 + Rng::with_seed(seed ^ message.cast_unsigned()).u64(..10_000) as i64
}

/// What the tables say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Messages that were booked more than once.
    pub(crate) doubled: Vec<i64>,
    /// Messages that were never booked.
    pub(crate) missing: Vec<i64>,
    /// Accounts whose sum is not that of their messages.
    pub(crate) wrong_sums: Vec<i64>,
    /// Messages that were booked and are no duplicates, for a store that knows nothing by itself.
    pub(crate) unmarked: Vec<i64>,
}

impl Found {
    pub(crate) fn is_right(&self) -> bool {
        *self == Found::default()
    }
}

/// `messages` were delivered, numbered from 0.
pub(crate) fn judge(bank: &Bank, seed: u64, messages: i64) -> Result<Found> {
    let booked = bank.query("SELECT message, count(*) FROM effects GROUP BY message", &[])?;
    let booked: BTreeMap<i64, i64> = booked.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(booked.keys().all(|message| (0..messages).contains(message)), "what nobody sent");
    let mut found = Found {
        doubled: booked.iter().filter(|(_, times)| **times > 1).map(|(m, _)| *m).collect(),
        missing: (0..messages).filter(|message| !booked.contains_key(message)).collect(),
        ..Found::default()
    };
    for account in 0..ACCOUNTS {
        let right: i64 =
            (0..messages).filter(|m| m % ACCOUNTS == account).map(|m| amount(seed, m)).sum();
        let sum: i64 = bank.query("SELECT sum FROM account WHERE id = $1", &[&account])?[0].get(0);
        if sum != right {
            found.wrong_sums.push(account);
        }
    }
    Ok(found)
}

/// Asks for every message with a new store, in a directory of its own.
pub(crate) fn unmarked(server: &str, schema: &str, dir: &Path, messages: i64) -> Result<Vec<i64>> {
    let store = store::open(server, schema, dir)?;
    let mut unmarked = Vec::new();
    for message in 0..messages {
        if !matches!(store.claim(store::key(message))?, Claim::Duplicate { .. }) {
            unmarked.push(message);
        }
    }
    Ok(unmarked)
}
