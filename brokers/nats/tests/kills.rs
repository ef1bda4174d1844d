//! Nothing is lost and nothing is booked twice, however often the consumer is killed.

use std::path::Path;
use std::thread;

use account::{Broker as _, Consume, Journal, Message, Options, campaign};
use onceonly_nats::{Nats, SERVER_WINDOW};

#[test]
fn killed_at_random_nothing_is_lost_or_booked_twice() {
    let exe = Path::new(env!("CARGO_BIN_EXE_onceonly-nats"));
    let options = Options { kills: 20, seed: 7, life_ms: 200 };
    let report = campaign::<Nats>(exe, Nats::SERVER, &options).expect("a campaign");
    println!("{report}");
    report.check().expect("a clean account");
    assert!(report.wasted_kills < report.kills / 2, "too few kills meet a working consumer");
    assert!(report.duplicates_refused > 0, "the repetitions of the producer were refused");
}

/// The server's own duplicate window stops a producer that sends again at once, and nothing later.
#[test]
fn the_servers_window_ends_and_the_stores_goes_on() {
    let queue = format!("onceonly-window-{}", std::process::id());
    let mut nats = Nats::create(Nats::SERVER, &queue).expect("a stream");
    let dir = tempfile::tempdir().expect("a directory");
    // The window is short, and this process may be slow: try until one is refused.
    let refused = (0..1000).any(|number| {
        let message = Message::numbered(number);
        nats.publish_one(&message).expect("sent");
        nats.publish_one(&message).expect("sent again")
    });
    assert!(refused, "the server refuses what comes again within its window");

    let message = Message::numbered(5000);
    assert!(!nats.publish_one(&message).expect("sent"));
    let forgotten = (0..200).any(|_| {
        thread::sleep(2 * SERVER_WINDOW);
        !nats.publish_one(&message).expect("sent again")
    });
    assert!(forgotten, "the server takes what comes again after its window");

    let stop_after = Some(nats.backlog().expect("a count"));
    let server = Nats::SERVER.to_owned();
    let consume = Consume { server, queue, dir: dir.path().to_owned(), stop_after };
    Nats::consume(&consume).expect("consumed");
    let done = Journal::read(dir.path()).expect("a journal");
    assert_eq!(done.effects["order-5000"], 1, "the store answers `Duplicate`");
    assert!(done.duplicates > 0);
    nats.remove().expect("removed");
}
