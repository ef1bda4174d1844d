//! The stores of the partitions that a consumer has: a store moves with its partition.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use account::open_store;
use anyhow::{Context as _, Error, Result};
use onceonly::Dedup;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::{ClientContext, TopicPartitionList};

/// The context of the client, which calls it back in each rebalance.
pub(crate) struct Partitions {
    dir: PathBuf,
    stores: Mutex<HashMap<i32, Dedup>>,
    /// What went wrong in a callback, which cannot return it.
    failed: Mutex<Option<Error>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partitions {
    pub(crate) fn new(dir: &Path) -> Self {
        Partitions { dir: dir.to_owned(), stores: Mutex::default(), failed: Mutex::default() }
    }

    pub(crate) fn store(&self, partition: i32) -> Option<Dedup> {
        lock(&self.stores).get(&partition).cloned()
    }

    /// The error of a callback, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        lock(&self.failed).take().map_or(Ok(()), Err)
    }

    /// Opens the stores of these partitions. The lock of a store waits for the owner of before; what
    /// that one had claimed is granted again. On another machine this is where the directory would be
    /// fetched.
    fn assign(&self, list: &TopicPartitionList) -> Result<()> {
        for partition in list.elements().iter().map(|element| element.partition()) {
            let store = open_store(&self.dir.join(format!("partition-{partition}")))
                .with_context(|| format!("open the store of partition {partition}"))?;
            lock(&self.stores).insert(partition, store);
            println!("assigned {partition}");
        }
        Ok(())
    }

    /// Closes them, so that the next owner need not wait.
    fn revoke(&self, list: &TopicPartitionList) -> Result<()> {
        for partition in list.elements().iter().map(|element| element.partition()) {
            let store = lock(&self.stores).remove(&partition);
            store.map_or(Ok(()), |store| store.close()).context("close a store")?;
        }
        Ok(())
    }

    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            lock(&self.failed).get_or_insert(error);
        }
    }
}

impl ClientContext for Partitions {}

impl ConsumerContext for Partitions {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.note(self.assign(list)),
            Rebalance::Revoke(list) => self.note(self.revoke(list)),
            Rebalance::Error(error) => self.note(Err(error.clone().into())),
        }
    }
}
