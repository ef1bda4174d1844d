//! NATS JetStream: batches are pulled, each message is acknowledged after the commit.

use std::time::Duration;

use account::{Answer, BATCH, Broker, Consume, Consumer, Delivery, Message};
use anyhow::{Error, Result, anyhow};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, AckKind, Context, stream};
use futures_util::StreamExt as _;
use tokio::runtime::Runtime;

/// A stream with one durable pull consumer.
pub struct Nats {
    runtime: Runtime,
    context: Context,
    name: String,
}

/// How long the server itself knows the id of a message. The default is two minutes; short here,
/// because a producer's retries come later than any such window.
pub const SERVER_WINDOW: Duration = Duration::from_millis(100);
/// After so long without an acknowledgement the server delivers again.
const ACK_WAIT: Duration = Duration::from_secs(2);

impl Nats {
    /// Sends a message with its id; true if the server's own window refused it.
    pub fn publish_one(&mut self, message: &Message) -> Result<bool> {
        let sent = self.context.send_publish(self.name.clone(), with_id(message));
        self.runtime.block_on(async { Ok(sent.await?.await?.duplicate) })
    }
}

fn with_id(message: &Message) -> PublishMessage {
    PublishMessage::build().payload(message.body().into()).message_id(&message.id)
}

impl Broker for Nats {
    const SERVER: &'static str = "nats://127.0.0.1:4222";
    const START: &'static str = "`docker run -p 4222:4222 nats -js`, or `apt-get install \
                                 nats-server && nats-server -js`";

    fn create(server: &str, queue: &str) -> Result<Self> {
        let runtime = Runtime::new()?;
        let context = runtime.block_on(async {
            let context = jetstream::new(async_nats::connect(server).await?);
            let stream_config = stream::Config {
                name: queue.to_owned(),
                retention: stream::RetentionPolicy::WorkQueue,
                duplicate_window: SERVER_WINDOW,
                ..Default::default()
            };
            let config = pull::Config {
                durable_name: Some(queue.to_owned()),
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                ..Default::default()
            };
            context.create_stream(stream_config).await?.create_consumer(config).await?;
            anyhow::Ok(context)
        })?;
        Ok(Nats { runtime, context, name: queue.to_owned() })
    }

    fn publish(&mut self, messages: &[Message]) -> Result<()> {
        self.runtime.block_on(async {
            let mut acknowledgements = Vec::new();
            for message in messages {
                let sent = self.context.send_publish(self.name.clone(), with_id(message));
                acknowledgements.push(sent.await?.into_future());
            }
            for acknowledgement in acknowledgements {
                acknowledgement.await?;
            }
            Ok(())
        })
    }

    fn backlog(&mut self) -> Result<u64> {
        // Acknowledged messages of a work queue are gone.
        let mut stream = self.runtime.block_on(self.context.get_stream(&self.name))?;
        Ok(self.runtime.block_on(stream.info())?.state.messages)
    }

    fn remove(self) -> Result<()> {
        self.runtime.block_on(self.context.delete_stream(&self.name))?;
        Ok(())
    }

    fn consume(consume: &Consume) -> Result<()> {
        Runtime::new()?.block_on(run(consume))
    }
}

async fn run(consume: &Consume) -> Result<()> {
    let mut consumer = Consumer::open(&consume.dir)?;
    let context = jetstream::new(async_nats::connect(&consume.server).await?);
    let pull: PullConsumer =
        context.get_consumer_from_stream(&consume.queue, &consume.queue).await?;

    while !consume.is_over(consumer.handler.meter.handled()) {
        let request = pull.batch().max_messages(BATCH).expires(Duration::from_millis(500));
        let mut arriving = request.messages().await?;
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(message) = arriving.next().await {
            batch.push(message.map_err(foreign)?);
        }
        let deliveries = batch.iter().map(delivery).collect::<Result<Vec<_>>>()?;
        let answers = consumer.handle(&deliveries)?;
        // Only after the commit. `double_ack` would wait for the server's answer; a lost
        // acknowledgement costs one redelivery, which is a duplicate.
        for (message, answer) in batch.iter().zip(answers) {
            let kind = match answer {
                Answer::Acknowledge => AckKind::Ack,
                Answer::Again => AckKind::Nak(Some(Duration::from_millis(100))),
            };
            message.ack_with(kind).await.map_err(foreign)?;
        }
    }
    println!("{}", consumer.handler.meter.report());
    Ok(())
}

fn delivery(message: &jetstream::Message) -> Result<Delivery> {
    let redelivered = message.info().map_err(foreign)?.delivered > 1;
    Ok(Delivery::new(Message::parse(&message.payload)?, redelivered))
}

/// The client's errors are boxed without being `anyhow`'s.
fn foreign(error: async_nats::Error) -> Error {
    anyhow!(error)
}
