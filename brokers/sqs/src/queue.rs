//! The producer's side: a standard or a FIFO queue of a campaign.

use std::env;
use std::marker::PhantomData;

use account::{Broker, Consume, Message};
use anyhow::{Context as _, Result, ensure};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_sqs::types::{QueueAttributeName, SendMessageBatchRequestEntry};
use aws_smithy_http_client::{Builder, tls};
use tokio::runtime::Runtime;

use crate::mock::Mock;
use crate::{AT_ONCE, VISIBILITY_S, count};

/// What kind of queue it is.
pub trait Kind {
    /// What the names of such queues end with.
    const SUFFIX: &'static str;
}

/// Delivers at least once, in about the order of sending.
pub struct Standard;

/// Keeps the order of each group, and drops what was sent before within five minutes: the same content,
/// by the queue's `ContentBasedDeduplication`.
pub struct Fifo;

impl Kind for Standard {
    const SUFFIX: &'static str = "";
}

impl Kind for Fifo {
    const SUFFIX: &'static str = ".fifo";
}

/// A queue of a server, or of a mock server that ends with it.
pub struct Sqs<K> {
    runtime: Runtime,
    client: Client,
    url: String,
    mock: Option<Mock>,
    kind: PhantomData<K>,
}

/// A client of the server at `address`. Region and credentials are those of the environment; a mock
/// takes any.
pub(crate) fn client(address: &str) -> Client {
    let variable = |name, other: &str| env::var(name).unwrap_or_else(|_| other.to_owned());
    let credentials = Credentials::new(
        variable("AWS_ACCESS_KEY_ID", "mock"),
        variable("AWS_SECRET_ACCESS_KEY", "mock"),
        env::var("AWS_SESSION_TOKEN").ok(),
        None,
        "environment",
    );
    let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(variable("AWS_REGION", "us-east-1")))
        .endpoint_url(address)
        .credentials_provider(credentials)
        .http_client(Builder::new().tls_provider(tls).build_https());
    Client::from_conf(config.build())
}

pub(crate) async fn url(client: &Client, queue: &str) -> Result<String> {
    // The consumer is given the name without the suffix of its kind.
    for suffix in [Standard::SUFFIX, Fifo::SUFFIX] {
        let asked = client.get_queue_url().queue_name(format!("{queue}{suffix}")).send();
        if let Ok(found) = asked.await {
            return found.queue_url.context("a queue without an address");
        }
    }
    anyhow::bail!("there is no queue {queue}")
}

impl<K: Kind> Sqs<K> {
    async fn make(client: &Client, queue: &str) -> Result<String> {
        let mut request = client
            .create_queue()
            .queue_name(format!("{queue}{}", K::SUFFIX))
            .attributes(QueueAttributeName::VisibilityTimeout, VISIBILITY_S.to_string());
        if !K::SUFFIX.is_empty() {
            request = request
                .attributes(QueueAttributeName::FifoQueue, "true")
                .attributes(QueueAttributeName::ContentBasedDeduplication, "true");
        }
        request.send().await?.queue_url.context("a queue without an address")
    }

    async fn send(&self, messages: &[Message]) -> Result<()> {
        let mut request = self.client.send_message_batch().queue_url(&self.url);
        for (at, message) in messages.iter().enumerate() {
            let mut entry = SendMessageBatchRequestEntry::builder()
                .id(at.to_string())
                .message_body(message.body());
            if !K::SUFFIX.is_empty() {
                // Orders do not wait for each other: while one of a group is out, the others are held.
                entry = entry.message_group_id(&message.id);
            }
            request = request.entries(entry.build()?);
        }
        let refused = request.send().await?.failed;
        ensure!(refused.is_empty(), "the queue refused messages: {refused:?}");
        Ok(())
    }
}

impl<K: Kind> Broker for Sqs<K> {
    const SERVER: &'static str = "mock";
    const START: &'static str = "`pip install 'moto[sqs,server]'` brings the mock's `moto_server`; a \
                                 real queue is made with `--server https://sqs.REGION.amazonaws.com` \
                                 and AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";

    /// The mock handles some 45 messages a second.
    const SENT_AT_ONCE: u64 = 60;

    fn create(server: &str, queue: &str) -> Result<Self> {
        let mock = if server == Self::SERVER { Some(Mock::start()?) } else { None };
        let address = mock.as_ref().map_or_else(|| server.to_owned(), Mock::address);
        let runtime = Runtime::new()?;
        // The client's timers begin inside the runtime.
        let (client, url) = runtime.block_on(async {
            let client = client(&address);
            let url = Self::make(&client, queue).await?;
            anyhow::Ok((client, url))
        })?;
        Ok(Sqs { runtime, client, url, mock, kind: PhantomData })
    }

    fn address(&self, given: &str) -> String {
        self.mock.as_ref().map_or_else(|| given.to_owned(), Mock::address)
    }

    fn publish(&mut self, messages: &[Message]) -> Result<()> {
        for some in messages.chunks(AT_ONCE) {
            self.runtime.block_on(self.send(some))?;
        }
        Ok(())
    }

    fn backlog(&mut self) -> Result<u64> {
        self.runtime.block_on(count(&self.client, &self.url))
    }

    fn remove(self) -> Result<()> {
        self.runtime.block_on(self.client.delete_queue().queue_url(&self.url).send())?;
        Ok(())
    }

    fn consume(consume: &Consume) -> Result<()> {
        crate::run(consume)
    }
}
