//! Kafka: a store a partition, opened and closed by the rebalance callbacks; offsets are committed
//! after the claims.

mod partitions;
mod topic;

use std::collections::BTreeMap;
use std::time::Duration;

use account::{Answer, BATCH, Consume, Delivery, Handler, Message};
use anyhow::{Context as _, Result};
use onceonly::Dedup;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use partitions::Partitions;
pub use topic::{Kafka, PARTITIONS};

/// What a group needs: nothing is committed but what this program commits.
fn group(server: &str, queue: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", server)
        .set("group.id", queue)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    config
}

fn run(consume: &Consume) -> Result<()> {
    let mut handler = Handler::open(&consume.dir)?;
    let consumer: BaseConsumer<Partitions> = group(&consume.server, &consume.queue)
        // Short, because the campaign waits so long after each kill (the default is 45 s), but longer
        // than the three seconds that a new group waits for its members.
        .set("session.timeout.ms", "3500")
        .set("heartbeat.interval.ms", "200")
        .create_with_context(Partitions::new(&consume.dir))?;
    consumer.subscribe(&[&consume.queue])?;

    while !consume.is_over(handler.meter.handled()) {
        let batch = poll(&consumer)?;
        let mut offsets = TopicPartitionList::new();
        for (partition, Arrived { next, deliveries }) in batch {
            // Taken away while the batch was collected: the next owner gets these messages.
            let Some(store) = consumer.context().store(partition) else { continue };
            handle_all(&mut handler, &store, deliveries)?;
            offsets.add_partition_offset(&consume.queue, partition, Offset::Offset(next))?;
        }
        // Only after the claims were committed: a death before this line brings the messages again,
        // and they are duplicates.
        if offsets.count() > 0 {
            commit(&consumer, &offsets)?;
        }
    }
    println!("{}", handler.meter.report());
    Ok(())
}

/// Commits offsets. In a rebalance, or when this consumer was taken for dead, the group refuses them;
/// then the next owner gets the messages again, and its store knows them.
fn commit(consumer: &BaseConsumer<Partitions>, offsets: &TopicPartitionList) -> Result<()> {
    use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    match consumer.commit(offsets, CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(
            IllegalGeneration | RebalanceInProgress | UnknownMemberId,
        )) => Ok(()),
        committed => committed.context("commit offsets"),
    }
}

/// Messages of one partition, in their order.
#[derive(Default)]
struct Arrived {
    /// The offset after the last of them.
    next: i64,
    deliveries: Vec<Delivery>,
}

/// Waits for a message and takes what has arrived with it. The rebalance callbacks run in here.
fn poll(consumer: &BaseConsumer<Partitions>) -> Result<BTreeMap<i32, Arrived>> {
    let mut batch: BTreeMap<i32, Arrived> = BTreeMap::new();
    let mut wait = Duration::from_millis(500);
    for _ in 0..BATCH {
        let Some(message) = consumer.poll(wait) else { break };
        let message = message?;
        let body = message.payload().context("a message without a body")?;
        let arrived = batch.entry(message.partition()).or_default();
        // Kafka has no flag for what it delivered before.
        let delivery = Delivery::new(Message::parse(body)?, false);
        arrived.deliveries.push(delivery);
        arrived.next = message.offset() + 1;
        wait = Duration::ZERO;
    }
    consumer.context().check()?;
    Ok(batch)
}

/// Handles deliveries until none has to come again: an offset cannot leave one out. Those are repeated
/// ids of this batch, and duplicates once the first is committed.
fn handle_all(handler: &mut Handler, store: &Dedup, mut left: Vec<Delivery>) -> Result<()> {
    while !left.is_empty() {
        let mut answers = handler.handle(store, &left)?.into_iter();
        left.retain(|_| answers.next() == Some(Answer::Again));
    }
    Ok(())
}
