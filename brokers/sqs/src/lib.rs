//! SQS: a message is deleted after the commit; the key is made of its content.

mod mock;
mod queue;

use std::collections::HashMap;

use account::{Answer, Consume, Consumer, Delivery, Message};
use anyhow::{Context as _, Result};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message as Received,
    MessageSystemAttributeName, QueueAttributeName,
};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

pub use queue::{Fifo, Kind, Sqs, Standard};

/// What SQS hands over at once, and takes back at once.
pub(crate) const AT_ONCE: usize = 10;
/// After so long without being deleted a message is delivered again. Longer than a batch takes; where
/// one batch may take longer, renew both, this and the lease.
pub(crate) const VISIBILITY_S: i32 = 2;

fn run(consume: &Consume) -> Result<()> {
    Runtime::new()?.block_on(async {
        let mut consumer = Consumer::open(&consume.dir)?;
        let client = queue::client(&consume.server);
        let url = queue::url(&client, &consume.queue).await?;
        while !consume.is_over(consumer.handler.meter.handled()) {
            let batch = receive(&client, &url).await?;
            let deliveries = batch.iter().map(delivery).collect::<Result<Vec<_>>>()?;
            let answers = consumer.handle(&deliveries)?;
            settle(&client, &url, &batch, &answers).await?;
        }
        println!("{}", consumer.handler.meter.report());
        Ok(())
    })
}

async fn receive(client: &Client, url: &str) -> Result<Vec<Received>> {
    let received = client
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(AT_ONCE as i32)
        // Long polling: an empty queue is asked once a second.
        .wait_time_seconds(1)
        .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
        .send();
    Ok(received.await?.messages.unwrap_or_default())
}

/// A producer's retry gets another `MessageId` from a standard queue: only the content tells that it is
/// the same message.
fn delivery(received: &Received) -> Result<Delivery> {
    let body = received.body().context("a message without a body")?;
    let count = received
        .attributes()
        .and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount));
    let redelivered = count.is_some_and(|count| count != "1");
    let delivery = Delivery::new(Message::parse(body.as_bytes())?, redelivered);
    Ok(delivery.by_content(&Sha256::digest(body)))
}

/// Only after the commit. What has to come again is made visible in a second.
async fn settle(client: &Client, url: &str, batch: &[Received], answers: &[Answer]) -> Result<()> {
    let (mut delete, mut again) = (client.delete_message_batch(), None);
    let mut deleted = false;
    for (at, (message, answer)) in batch.iter().zip(answers).enumerate() {
        let handle = message.receipt_handle().context("a message without a receipt")?;
        match answer {
            Answer::Acknowledge => {
                let entry = DeleteMessageBatchRequestEntry::builder();
                delete = delete.entries(entry.id(at.to_string()).receipt_handle(handle).build()?);
                deleted = true;
            }
            Answer::Again => {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(at.to_string())
                    .receipt_handle(handle)
                    .visibility_timeout(1);
                let request = again.unwrap_or_else(|| client.change_message_visibility_batch());
                again = Some(request.entries(entry.build()?));
            }
        }
    }
    // An entry that fails is delivered again when its time is over, and is a duplicate.
    if deleted {
        delete.queue_url(url).send().await?;
    }
    if let Some(again) = again {
        again.queue_url(url).send().await?;
    }
    Ok(())
}

/// Messages that are in the queue, handed over or not.
async fn count(client: &Client, url: &str) -> Result<u64> {
    const COUNTS: [QueueAttributeName; 3] = [
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        QueueAttributeName::ApproximateNumberOfMessagesDelayed,
    ];
    let mut request = client.get_queue_attributes().queue_url(url);
    for name in COUNTS {
        request = request.attribute_names(name);
    }
    let attributes: HashMap<_, _> = request.send().await?.attributes.unwrap_or_default();
    let counts = COUNTS.iter().filter_map(|name| attributes.get(name));
    counts.map(|count| Ok(count.parse::<u64>()?)).sum()
}
