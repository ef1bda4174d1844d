//! Nothing is lost and nothing is booked twice, however often the consumer is killed.

use std::path::Path;

use account::{Broker as _, Consume, Journal, Message, Options, campaign};
use onceonly_sqs::{Fifo, Sqs, Standard};

/// The mock is slow.
const OPTIONS: Options = Options { kills: 6, seed: 7, life_ms: 600 };

#[test]
fn a_standard_queue_loses_and_doubles_nothing() {
    let exe = Path::new(env!("CARGO_BIN_EXE_onceonly-sqs"));
    let report =
        campaign::<Sqs<Standard>>(exe, Sqs::<Standard>::SERVER, &OPTIONS).expect("a campaign");
    println!("{report}");
    report.check().expect("a clean account");
    assert!(report.duplicates_refused > 0, "the repetitions of the producer were refused");
}

#[test]
fn a_fifo_queue_loses_and_doubles_nothing() {
    let exe = Path::new(env!("CARGO_BIN_EXE_onceonly-sqs-fifo"));
    let report = campaign::<Sqs<Fifo>>(exe, Sqs::<Fifo>::SERVER, &OPTIONS).expect("a campaign");
    println!("{report}");
    report.check().expect("a clean account");
}

/// Sends three messages twice, handles what arrives, and returns how many were duplicates.
fn duplicates_of_a_retry<K: onceonly_sqs::Kind>(queue: &str) -> u64 {
    let mut sqs = Sqs::<K>::create(Sqs::<K>::SERVER, queue).expect("a queue");
    let dir = tempfile::tempdir().expect("a directory");
    let messages: Vec<Message> = (0..3).map(Message::numbered).collect();
    sqs.publish(&messages).expect("sent");
    sqs.publish(&messages).expect("sent again");
    let stop_after = Some(sqs.backlog().expect("a count"));
    let server = sqs.address(Sqs::<K>::SERVER);
    let consume =
        Consume { server, queue: queue.to_owned(), dir: dir.path().to_owned(), stop_after };
    Sqs::<K>::consume(&consume).expect("consumed");
    let done = Journal::read(dir.path()).expect("a journal");
    for message in &messages {
        assert_eq!(done.effects[&message.id], 1, "{}", message.id);
    }
    sqs.remove().expect("removed");
    done.duplicates
}

/// A standard queue gives each copy an id of its own; the content tells that it is one message.
#[test]
fn the_content_tells_a_retry() {
    assert_eq!(duplicates_of_a_retry::<Standard>("retry"), 3);
}

/// A FIFO queue drops a copy within five minutes by itself.
#[test]
fn a_fifo_queue_drops_a_retry_that_comes_soon() {
    assert_eq!(duplicates_of_a_retry::<Fifo>("retry"), 0);
}
