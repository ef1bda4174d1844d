//! RabbitMQ: the prefetch is the batch, the acknowledgement comes after the commit.

use account::{Answer, BATCH, Broker, Consume, Consumer, Delivery, Message};
use anyhow::{Context as _, Result, ensure};
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery as Frame;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::runtime::Runtime;

/// A durable queue, and a channel whose publications are confirmed.
pub struct RabbitMq {
    runtime: Runtime,
    channel: Channel,
    /// Keeps the channel open.
    _connection: Connection,
    queue: String,
}

impl Broker for RabbitMq {
    const SERVER: &'static str = "amqp://guest:guest@127.0.0.1:5672/%2f";
    const START: &'static str = "`docker run -p 5672:5672 rabbitmq`, or `apt-get install \
                                 rabbitmq-server && service rabbitmq-server start`";

    fn create(server: &str, queue: &str) -> Result<Self> {
        let runtime = Runtime::new()?;
        let (connection, channel) = runtime.block_on(async {
            let connection = Connection::connect(server, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
            anyhow::Ok((connection, channel))
        })?;
        Ok(RabbitMq { runtime, channel, _connection: connection, queue: queue.to_owned() })
    }

    fn publish(&mut self, messages: &[Message]) -> Result<()> {
        self.runtime.block_on(async {
            let mut confirms = Vec::new();
            for message in messages {
                let properties = BasicProperties::default()
                    .with_message_id(message.id.as_str().into())
                    .with_delivery_mode(2);
                let options = BasicPublishOptions::default();
                let (queue, body) = (self.queue.as_str().into(), message.body());
                let sent = self.channel.basic_publish(
                    "".into(),
                    queue,
                    options,
                    body.as_bytes(),
                    properties,
                );
                confirms.push(sent.await?);
            }
            for confirm in confirms {
                ensure!(confirm.await?.is_ack(), "the broker refused a message");
            }
            Ok(())
        })
    }

    fn backlog(&mut self) -> Result<u64> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared =
            self.channel.queue_declare(self.queue.as_str().into(), options, FieldTable::default());
        Ok(self.runtime.block_on(declared)?.message_count().into())
    }

    fn remove(self) -> Result<()> {
        let options = QueueDeleteOptions::default();
        self.runtime.block_on(self.channel.queue_delete(self.queue.as_str().into(), options))?;
        Ok(())
    }

    fn consume(consume: &Consume) -> Result<()> {
        Runtime::new()?.block_on(run(consume))
    }
}

async fn run(consume: &Consume) -> Result<()> {
    let mut consumer = Consumer::open(&consume.dir)?;
    let connection = Connection::connect(&consume.server, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    // At most one batch is in this process: what a death can repeat.
    channel.basic_qos(BATCH as u16, BasicQosOptions::default()).await?;
    let queue = consume.queue.as_str().into();
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut frames = channel.basic_consume(queue, "".into(), options, table).await?;

    while !consume.is_over(consumer.handler.meter.handled()) {
        let mut batch = vec![frames.next().await.context("the broker ended the consumer")??];
        // What has arrived already; an early message never waits for a late one.
        while batch.len() < BATCH
            && let Some(Some(frame)) = frames.next().now_or_never()
        {
            batch.push(frame?);
        }
        let deliveries = batch.iter().map(delivery).collect::<Result<Vec<_>>>()?;
        // Blocks this thread: with more than one consumer in a process, use `spawn_blocking`.
        let answers = consumer.handle(&deliveries)?;
        settle(&batch, &answers).await?;
    }
    println!("{}", consumer.handler.meter.report());
    Ok(())
}

fn delivery(frame: &Frame) -> Result<Delivery> {
    let message = Message::parse(&frame.data)?;
    Ok(Delivery::new(message, frame.redelivered))
}

/// Only after the commit: a death before this line is answered by a redelivery, and that by
/// `Duplicate`.
async fn settle(batch: &[Frame], answers: &[Answer]) -> Result<()> {
    let last = batch.last().context("no batch is empty")?;
    if answers.iter().all(|answer| *answer == Answer::Acknowledge) {
        last.acker.ack(BasicAckOptions { multiple: true }).await?;
        return Ok(());
    }
    for (frame, answer) in batch.iter().zip(answers) {
        match answer {
            Answer::Acknowledge => frame.acker.ack(BasicAckOptions::default()).await?,
            Answer::Again => {
                frame.acker.nack(BasicNackOptions { requeue: true, multiple: false }).await?
            }
        };
    }
    Ok(())
}
