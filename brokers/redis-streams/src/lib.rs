//! Redis Streams: a consumer group, with what dead consumers left claimed by `XAUTOCLAIM`.

use std::process;
use std::time::{Duration, Instant};

use account::{Answer, BATCH, Broker, Consume, Consumer, Delivery, Message};
use anyhow::{Context as _, Result};
use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamReadOptions, StreamReadReply,
};
use redis::{Client, Commands as _, Connection, pipe};

const GROUP: &str = "orders";
const BODY: &str = "body";
/// An entry that nobody has acknowledged for so long is taken over. The store lets no two consumers
/// work on one id, so this may be shorter than the slowest work.
const MIN_IDLE: Duration = Duration::from_millis(500);

/// A stream with one consumer group.
pub struct RedisStreams {
    connection: Connection,
    stream: String,
}

impl Broker for RedisStreams {
    const SERVER: &'static str = "redis://127.0.0.1:6379";
    const START: &'static str = "`docker run -p 6379:6379 redis`, or `apt-get install redis-server \
                                 && redis-server`";

    fn create(server: &str, queue: &str) -> Result<Self> {
        let mut connection = Client::open(server)?.get_connection()?;
        let _: () = connection.xgroup_create_mkstream(queue, GROUP, "0")?;
        Ok(RedisStreams { connection, stream: queue.to_owned() })
    }

    fn publish(&mut self, messages: &[Message]) -> Result<()> {
        let mut pipe = pipe();
        for message in messages {
            pipe.xadd(&self.stream, "*", &[(BODY, message.body())]).ignore();
        }
        Ok(pipe.query(&mut self.connection)?)
    }

    fn backlog(&mut self) -> Result<u64> {
        // Entries are deleted when they are acknowledged.
        Ok(self.connection.xlen(&self.stream)?)
    }

    fn remove(mut self) -> Result<()> {
        Ok(self.connection.del(&self.stream)?)
    }

    fn consume(consume: &Consume) -> Result<()> {
        let consumer = Consumer::open(&consume.dir)?;
        let connection = Client::open(consume.server.as_str())?.get_connection()?;
        let name = format!("consumer-{}", process::id());
        Reader { connection, stream: &consume.queue, name, looked: None }.run(consumer, consume)
    }
}

struct Reader<'a> {
    connection: Connection,
    stream: &'a str,
    /// A name for each process: two of one name would share their pending entries.
    name: String,
    /// When the entries of dead consumers were last looked for.
    looked: Option<Instant>,
}

impl Reader<'_> {
    fn run(mut self, mut consumer: Consumer, consume: &Consume) -> Result<()> {
        while !consume.is_over(consumer.handler.meter.handled()) {
            let mut batch = self.left_behind()?;
            let redelivered = !batch.is_empty();
            if batch.is_empty() {
                batch = self.fresh()?;
            }
            let deliveries = batch.iter().map(|entry| delivery(entry, redelivered));
            let deliveries = deliveries.collect::<Result<Vec<_>>>()?;
            let answers = consumer.handle(&deliveries)?;
            // What has to come again stays pending, and is found as left behind.
            self.acknowledge(&batch, &answers)?;
        }
        println!("{}", consumer.handler.meter.report());
        Ok(())
    }

    /// Pending entries of others that are idle, now and then.
    fn left_behind(&mut self) -> Result<Vec<StreamId>> {
        if self.looked.is_some_and(|looked| looked.elapsed() < MIN_IDLE / 2) {
            return Ok(Vec::new());
        }
        let options = StreamAutoClaimOptions::default().count(BATCH);
        let idle_ms = MIN_IDLE.as_millis() as u64;
        let reply: StreamAutoClaimReply = self.connection.xautoclaim_options(
            self.stream,
            GROUP,
            &self.name,
            idle_ms,
            "0-0",
            options,
        )?;
        // A full answer means that there may be more: look again at once.
        self.looked = (reply.claimed.len() < BATCH).then(Instant::now);
        Ok(reply.claimed)
    }

    fn fresh(&mut self) -> Result<Vec<StreamId>> {
        let options = StreamReadOptions::default().group(GROUP, &self.name).count(BATCH).block(100);
        let reply: Option<StreamReadReply> =
            self.connection.xread_options(&[self.stream], &[">"], &options)?;
        let streams = reply.map(|reply| reply.keys).unwrap_or_default();
        Ok(streams.into_iter().flat_map(|stream| stream.ids).collect())
    }

    /// Only after the commit.
    fn acknowledge(&mut self, batch: &[StreamId], answers: &[Answer]) -> Result<()> {
        let done = batch.iter().zip(answers).filter(|(_, answer)| **answer == Answer::Acknowledge);
        let ids: Vec<&str> = done.map(|(entry, _)| entry.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut pipe = pipe();
        pipe.xack(self.stream, GROUP, &ids).ignore().xdel(self.stream, &ids).ignore();
        Ok(pipe.query(&mut self.connection)?)
    }
}

fn delivery(entry: &StreamId, redelivered: bool) -> Result<Delivery> {
    let body: String = entry.get(BODY).context("an entry has a body")?;
    Ok(Delivery::new(Message::parse(body.as_bytes())?, redelivered))
}
