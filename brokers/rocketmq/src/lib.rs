//! RocketMQ: a message that becomes visible only if the producer's local transaction did, and its
//! consumer.

mod shop;

use std::path::PathBuf;

use account::{Answer, Consumer, Delivery, Message};
use anyhow::{Result, anyhow};
use rocketmq::conf::{ClientOption, ProducerOption, SimpleConsumerOption};
use rocketmq::error::ClientError;
use rocketmq::model::common::{FilterExpression, FilterType};
use rocketmq::model::message::{MessageBuilder, MessageView};
use rocketmq::model::transaction::{Transaction as _, TransactionResolution};
use rocketmq::{Producer, SimpleConsumer};

pub use shop::{Decision, Shop};

/// Where the server is, and what belongs to this program.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The proxy of RocketMQ 5.
    #[arg(long, default_value = "localhost:8081")]
    pub server: String,
    /// Has to be there, with the message type TRANSACTION.
    #[arg(long, default_value = "onceonly-orders")]
    pub topic: String,
    /// Where store and books are.
    #[arg(long)]
    pub dir: PathBuf,
}

impl Place {
    fn client(&self) -> ClientOption {
        let mut option = ClientOption::default();
        option.set_access_url(&self.server);
        option.set_enable_tls(false);
        option
    }
}

/// Places `orders` orders. Every tenth time the last step is left out, as if the producer had died
/// there: the server checks back and finds out.
pub async fn produce(place: &Place, orders: u64) -> Result<()> {
    let shop = Shop::open(&place.dir)?;
    let mut option = ProducerOption::default();
    option.set_topics(vec![&place.topic]);
    let checked = shop.clone();
    let checker = Box::new(move |_, message: MessageView| resolve(&checked, message.body()));
    let mut producer = Producer::new_transaction_producer(option, place.client(), checker)
        .map_err(|error| foreign(&error))?;
    producer.start().await.map_err(|error| foreign(&error))?;
    for number in 0..orders {
        let order = Message::numbered(number);
        // Before the half message: from here on a check-back knows that somebody is at it.
        let Some(guard) = shop.begin(&order)? else { continue };
        let body = order.body().into_bytes();
        let message = MessageBuilder::transaction_message_builder(&place.topic, body)
            .set_keys(vec![&order.id])
            .build()
            .map_err(|error| foreign(&error))?;
        let half = producer.send_transaction_message(message).await;
        let half = half.map_err(|error| foreign(&error))?;
        shop.place(&order, guard)?;
        if number % 10 != 9 {
            half.commit().await.map_err(|error| foreign(&error))?;
        }
    }
    producer.shutdown().await.map_err(|error| foreign(&error))
}

/// What the server is told. An error here is no reason to drop an order: it asks again.
fn resolve(shop: &Shop, body: &[u8]) -> TransactionResolution {
    match Message::parse(body).and_then(|order| shop.check(&order)) {
        Ok(Decision::Deliver) => TransactionResolution::COMMIT,
        Ok(Decision::Drop) => TransactionResolution::ROLLBACK,
        Ok(Decision::Unknown) | Err(_) => TransactionResolution::UNKNOWN,
    }
}

/// Handles messages until `most` are done. A message is acknowledged after the commit of its claim;
/// one that is not comes again when its invisible time is over.
pub async fn consume(place: &Place, group: &str, most: u64) -> Result<()> {
    let mut consumer = Consumer::open(&place.dir)?;
    let mut option = SimpleConsumerOption::default();
    option.set_topics(vec![&place.topic]);
    option.set_consumer_group(group);
    let mut broker =
        SimpleConsumer::new(option, place.client()).map_err(|error| foreign(&error))?;
    broker.start().await.map_err(|error| foreign(&error))?;
    let all = FilterExpression::new(FilterType::Tag, "*");
    while consumer.handler.meter.handled() < most {
        let batch = broker.receive(&place.topic, &all).await.map_err(|error| foreign(&error))?;
        let deliveries = batch.iter().map(delivery).collect::<Result<Vec<_>>>()?;
        let answers = consumer.handle(&deliveries)?;
        for (message, answer) in batch.iter().zip(answers) {
            if answer == Answer::Acknowledge {
                broker.ack(message).await.map_err(|error| foreign(&error))?;
            }
        }
    }
    println!("{}", consumer.handler.meter.report());
    broker.shutdown().await.map_err(|error| foreign(&error))
}

fn delivery(message: &MessageView) -> Result<Delivery> {
    Ok(Delivery::new(Message::parse(message.body())?, message.delivery_attempt() > 1))
}

/// The client's error, by what it shows.
fn foreign(error: &ClientError) -> anyhow::Error {
    anyhow!("RocketMQ: {error}")
}
