//! Nothing is lost and nothing is booked twice, however often the consumer is killed or its
//! partitions move.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use account::{Books, Broker as _, Journal, Message, Options, campaign};
use onceonly_kafka::{Kafka, PARTITIONS};

const EXE: &str = env!("CARGO_BIN_EXE_onceonly-kafka");

#[test]
fn killed_at_random_nothing_is_lost_or_booked_twice() {
    let options = Options { kills: 6, seed: 7, life_ms: 200 };
    let report = campaign::<Kafka>(Path::new(EXE), Kafka::SERVER, &options).expect("a campaign");
    println!("{report}");
    report.check().expect("a clean account");
    assert!(report.wasted_kills < report.kills / 2, "too few kills meet a working consumer");
    assert!(report.duplicates_refused > 0, "the repetitions of the producer were refused");
}

struct Member(Child);

impl Member {
    fn start(server: &str, queue: &str, dir: &Path) -> Self {
        let mut command = Command::new(EXE);
        command.args(["consume", "--server", server, "--queue", queue, "--dir"]).arg(dir);
        Member(command.stdout(Stdio::piped()).spawn().expect("started"))
    }

    /// Waits until it has said so of `count` partitions that they are its own.
    fn assigned(&mut self, count: usize) {
        let output = BufReader::new(self.0.stdout.as_mut().expect("piped"));
        let said = output
            .lines()
            .take(count)
            .filter(|line| line.as_ref().expect("a line").starts_with("assigned "));
        assert_eq!(said.count(), count);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

fn drain(kafka: &mut Kafka) {
    let since = Instant::now();
    while kafka.backlog().expect("a count") > 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "messages are left");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What one member has done is a duplicate for the one that its partitions move to.
#[test]
fn a_store_moves_with_its_partition() {
    let queue = format!("onceonly-move-{}", std::process::id());
    let mut kafka = Kafka::create(Kafka::SERVER, &queue).expect("a topic");
    let server = kafka.address(Kafka::SERVER);
    let dir = tempfile::tempdir().expect("a directory");
    let messages: Vec<Message> = (0..400).map(Message::numbered).collect();

    let mut first = Member::start(&server, &queue, dir.path());
    first.assigned(PARTITIONS as usize);
    kafka.publish(&messages).expect("sent");
    drain(&mut kafka);
    // The group shares its partitions out anew; the first member closes the stores it gives away.
    let mut second = Member::start(&server, &queue, dir.path());
    second.assigned(PARTITIONS as usize / 2);
    kafka.publish(&messages).expect("sent again");
    drain(&mut kafka);
    // And the other way round, when a member is gone.
    drop(first);
    second.assigned(PARTITIONS as usize);
    kafka.publish(&messages).expect("sent once more");
    drain(&mut kafka);
    drop(second);

    let done = Journal::read(dir.path()).expect("a journal");
    assert!(done.duplicates >= 2 * messages.len() as u64, "{} duplicates", done.duplicates);
    let tally = Books::tally(dir.path()).expect("books");
    for message in &messages {
        assert_eq!(done.effects[&message.id], 1, "{}", message.id);
        assert_eq!(tally[&message.id], [message.amount]);
    }
    kafka.remove().expect("removed");
}
