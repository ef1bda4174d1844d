//! Orders, stock and money agree, however often the workers are killed or stuck.

use std::path::Path;

use onceonly_saga::{Options, POSTGRES, campaign};

fn every_order_ends_paid_or_undone(postgres: Option<&str>) {
    let exe = Path::new(env!("CARGO_BIN_EXE_onceonly-saga"));
    let postgres = postgres.map(str::to_owned);
    let options = Options { kills: 30, seed: 7, life_ms: 300, orders_per_kill: 5, postgres };
    let report = campaign(exe, &options).expect("a campaign");
    println!("{report}");
    report.check().expect("all adds up");
    assert!(report.paid > 0 && report.cancelled > 0 && report.taken_again > 0, "{report}");
}

#[test]
fn killed_at_random_with_the_shop_in_sqlite() {
    every_order_ends_paid_or_undone(None);
}

#[test]
fn killed_at_random_with_the_shop_in_postgresql() {
    every_order_ends_paid_or_undone(Some(POSTGRES));
}
