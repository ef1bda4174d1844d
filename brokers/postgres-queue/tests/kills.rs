//! Nothing is lost and nothing is booked twice, however often the consumer is killed.

use std::path::Path;

use account::{Broker as _, Options, campaign};
use onceonly_postgres_queue::PostgresQueue;

#[test]
fn killed_at_random_nothing_is_lost_or_booked_twice() {
    let exe = Path::new(env!("CARGO_BIN_EXE_onceonly-postgres-queue"));
    let options = Options { kills: 20, seed: 7, life_ms: 200 };
    let report =
        campaign::<PostgresQueue>(exe, PostgresQueue::SERVER, &options).expect("a campaign");
    println!("{report}");
    report.check().expect("a clean account");
    assert!(report.wasted_kills < report.kills / 2, "too few kills meet a working consumer");
    assert!(report.duplicates_refused > 0, "the repetitions of the producer were refused");
}
