//! The producer's side: a topic of a server, or of the mock cluster that the client comes with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use account::{Broker, Consume, Message};
use anyhow::{Context as _, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, Producer as _, ProducerContext,
};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

/// Partitions of a campaign's topic.
pub const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// A topic, and a producer that is sure of its deliveries.
pub struct Kafka {
    cluster: Cluster,
    topic: String,
    producer: BaseProducer<Deliveries>,
    /// Asks for offsets; never joins the group.
    watcher: BaseConsumer,
}

/// Where the topic is.
enum Cluster {
    /// In this process: ends with it.
    Mock(MockCluster<'static, DefaultProducerContext>),
    Server(AdminClient<DefaultClientContext>, String),
}

/// Notes the first message that could not be delivered.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<Option<KafkaError>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error.clone());
        }
    }
}

impl Cluster {
    fn open(server: &str, topic: &str) -> Result<Self> {
        if server == Kafka::SERVER {
            let mock = MockCluster::new(1)?;
            mock.create_topic(topic, PARTITIONS, 1)?;
            return Ok(Cluster::Mock(mock));
        }
        let admin: AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", server).create()?;
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        let created = wait(admin.create_topics([&new], &AdminOptions::new()))??;
        for topic in created {
            topic.map_err(|(_, code)| KafkaError::AdminOp(code))?;
        }
        Ok(Cluster::Server(admin, server.to_owned()))
    }

    fn address(&self) -> String {
        match self {
            Cluster::Mock(mock) => mock.bootstrap_servers(),
            Cluster::Server(_, address) => address.clone(),
        }
    }
}

/// Runs one request of the administration to its end.
fn wait<F: Future>(request: F) -> Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(request))
}

impl Broker for Kafka {
    const SERVER: &'static str = "mock";
    const START: &'static str = "none is needed for `mock`; `docker run -p 9092:9092 apache/kafka` \
                                 for `--server localhost:9092`";

    fn create(server: &str, queue: &str) -> Result<Self> {
        let cluster = Cluster::open(server, queue)?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.address())
            // The client's own retries make no duplicates, and keep the order. It knows nothing of
            // a producer that died and sends again.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Equal ids go to one partition, whichever client sends them, and so to one store.
            .set("partitioner", "murmur2_random")
            .create_with_context(Deliveries::default())?;
        let watcher = crate::group(&cluster.address(), queue).create()?;
        Ok(Kafka { cluster, topic: queue.to_owned(), producer, watcher })
    }

    fn address(&self, _: &str) -> String {
        self.cluster.address()
    }

    fn publish(&mut self, messages: &[Message]) -> Result<()> {
        for message in messages {
            let body = message.body();
            let mut record = BaseRecord::to(&self.topic).key(&message.id).payload(&body);
            while let Err((error, back)) = self.producer.send(record) {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                anyhow::ensure!(full, error);
                self.producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        self.producer.flush(PATIENCE).context("the messages are not delivered")?;
        let failed =
            self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn backlog(&mut self) -> Result<u64> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.topic, 0, PARTITIONS - 1);
        let committed = self.watcher.committed_offsets(asked, PATIENCE)?;
        let mut left = 0;
        for partition in 0..PARTITIONS {
            let (_, end) = self.watcher.fetch_watermarks(&self.topic, partition, PATIENCE)?;
            let element = committed.find_partition(&self.topic, partition);
            let done = match element.map(|element| element.offset()) {
                Some(Offset::Offset(done)) => done,
                _ => 0,
            };
            left += u64::try_from(end - done).unwrap_or(0);
        }
        Ok(left)
    }

    fn remove(self) -> Result<()> {
        if let Cluster::Server(admin, _) = &self.cluster {
            wait(admin.delete_topics(&[&self.topic], &AdminOptions::new()))??;
        }
        Ok(())
    }

    fn consume(consume: &Consume) -> Result<()> {
        crate::run(consume)
    }
}
