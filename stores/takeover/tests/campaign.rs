//! A slice of the campaign.

use std::process::{Command, Output};

fn campaign(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_onceonly-takeover"))
        .arg("campaign")
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn owners_know_what_the_killed_ones_before_knew() {
    let output = campaign(&["--kills", "40", "--seed", "3"]);
    let said = said(&output);
    assert!(output.status.success() && said.contains(" wrong 0\n"), "{said}");
}

/// Whoever takes over a killed owner may miss what was not written: one that denies it is found out.
#[test]
fn what_is_missing_without_a_word_is_noticed() {
    let output = campaign(&["--kills", "40", "--seed", "3", "--lie", "forgets-holes"]);
    let said = said(&output);
    assert!(!output.status.success() && said.contains("lost without a word"), "{said}");
}
