//! The feature `serde`: settings from a configuration file, and into one.

use std::time::Duration;

use onceonly::{Builder, Dedup, DigestKind, Durability, Error};

/// Whatever can be set is in the file, and comes back as it was.
#[test]
fn settings_survive_a_file() {
    let builder = Dedup::builder()
        .window(Duration::from_secs(5_400))
        .slices(15)
        .expected_keys(7)
        .false_positive_rate(0.01)
        .durability(Durability::Interval(Duration::from_millis(250)))
        .digest(DigestKind::SipHash13)
        .max_keys(9)
        .refresh_on_duplicate(true)
        .trace(true)
        .event_time(true)
        .max_event_lead(Duration::from_secs(1))
        .lease(Duration::from_secs(2))
        .lock_wait(Duration::from_secs(3))
        .allow_any_filesystem(true)
        .shards(4);
    let text = serde_json::to_string(&builder).unwrap();
    assert!(text.contains(r#""window":"1h 30m""#), "{text}");
    assert!(text.contains(r#""durability":{"interval":"250ms"}"#), "{text}");
    let read: Builder = serde_json::from_str(&text).unwrap();
    // The rest of a builder (clock, secret) is as it is by default in both.
    assert_eq!(format!("{read:?}"), format!("{builder:?}"));
}

/// A file names what differs from the defaults.
#[test]
fn what_is_not_named_has_its_default() {
    let read: Builder = serde_json::from_str(r#"{"window":"1h","durability":"sync"}"#).unwrap();
    let same = Dedup::builder().window(Duration::from_secs(3_600)).durability(Durability::Sync);
    assert_eq!(format!("{read:?}"), format!("{same:?}"));
    let nothing: Builder = serde_json::from_str("{}").unwrap();
    let error = nothing.in_memory().unwrap_err();
    assert!(matches!(error, Error::Config { field: "window", .. }), "{error}");
}

/// A slip of the pen is an error, not a default.
#[test]
fn what_is_no_setting_is_refused() {
    let wrong = [
        (r#"{"windw":"1h"}"#, "windw"),
        (r#"{"window":"soon"}"#, "soon"),
        (r#"{"window":3600}"#, "3600"),
        (r#"{"durability":"fsync"}"#, "fsync"),
        (r#"{"digest":"md5"}"#, "md5"),
        (r#"{"slices":-1}"#, "-1"),
        (r#"{"secret":"00"}"#, "secret"),
    ];
    for (text, word) in wrong {
        let error = serde_json::from_str::<Builder>(text).unwrap_err().to_string();
        assert!(error.contains(word), "no `{word}` in {error}");
    }
}

/// A secret does not get into a file that is shown and copied.
#[test]
fn the_secret_stays_out_of_the_file() {
    let builder = Dedup::builder().window(Duration::from_secs(1)).secret([0xab; 32]);
    let text = serde_json::to_string(&builder).unwrap();
    assert!(!text.contains("secret") && !text.contains("171"), "{text}");
}
