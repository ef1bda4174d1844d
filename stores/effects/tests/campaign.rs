//! A slice of the campaign.

use std::process::{Command, Output};

#[path = "../../postgres/tests/server/mod.rs"]
mod server;

fn campaign(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_onceonly-effects"))
        .args(["campaign", "--server", server::url()])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn messages_are_booked_once_though_consumers_are_killed() {
    let output = campaign(&["--kills", "12", "--seed", "5", "--consumers", "4"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("booked twice 0 never 0 wrong sums 0 unmarked 0"), "{said}");
}
