//! `guaranteed_since`: servers that lost what they knew, and keys that were assumed to be new.

use std::time::Duration;

use onceonly::authority::memory::Fault;
use onceonly::{OnOutage, Timestamp};

use crate::common::{fast_dir, start};
use crate::fixture::{SHORT, Site, WINDOW, eventually, is_new};

/// So long after the start.
fn at(since_start: Duration) -> Timestamp {
    Timestamp::from(start() + since_start)
}

#[test]
fn a_space_vouches_for_what_it_has_seen() {
    let site = Site::new();
    let a = site.store();
    assert_eq!(a.guaranteed_since(), at(Duration::ZERO));
    site.clock.advance(Duration::from_secs(100));
    let late = site.store();
    assert_eq!(late.guaranteed_since(), at(Duration::ZERO), "the space is older than it");
    site.clock.advance(WINDOW * 2);
    let since = at(Duration::from_secs(100) + WINDOW);
    assert_eq!((a.guaranteed_since(), late.guaranteed_since()), (since, since));
}

#[test]
fn a_server_that_lost_its_data_is_not_believed() {
    for with_backup in [false, true] {
        let site = Site::new();
        let a = site.store();
        assert!(is_new(&a, "1"));
        let backup = site.server.snapshot();
        assert!(is_new(&a, "2"));
        let b = site.store();
        site.clock.advance(Duration::from_secs(50));
        site.server.restart(with_backup.then_some(backup));
        let lost_at = at(Duration::from_secs(50));
        site.clock.advance(Duration::from_secs(10));
        // The answer that shows it is not vouched for any more.
        assert!(is_new(&b, "2"));
        assert!(b.guaranteed_since() >= lost_at);
        // A space that is gone is made anew when it is missed.
        let known = if with_backup { lost_at } else { at(Duration::from_secs(60)) };
        eventually("it says since when it knows all", || b.guaranteed_since() == known);
        // What is known here stays known.
        assert!(!is_new(&a, "1") && !is_new(&a, "2"));
        assert_eq!(site.store().guaranteed_since(), known);
    }
}

#[test]
fn what_was_assumed_is_a_hole_that_survives() {
    let site = Site::new();
    let dir = fast_dir();
    let path = dir.path().join("a");
    let open = || {
        let builder = site.builder().authority_deadline(SHORT).on_outage(OnOutage::AssumeNew);
        builder.open(&path).unwrap()
    };
    let a = open();
    site.clock.advance(Duration::from_secs(50));
    assert_eq!(a.guaranteed_since(), at(Duration::ZERO));
    site.server.outage(Some(Fault::Refuse));
    assert!(is_new(&a, "1"));
    assert_eq!(a.guaranteed_since(), at(Duration::from_secs(50)), "now");
    for after in 51..60 {
        site.clock.advance(Duration::from_secs(1));
        assert!(is_new(&a, &after.to_string()));
        assert_eq!(a.guaranteed_since(), at(Duration::from_secs(after)));
    }
    site.server.outage(None);
    eventually("it recovers", || a.on_outage(OnOutage::Fail).contains("x").is_ok());
    site.clock.advance(Duration::from_secs(100));
    let since = a.guaranteed_since();
    let last = at(Duration::from_secs(59));
    assert!(since > last, "{since}");
    assert!(since.as_unix_millis() <= last.as_unix_millis() + 5_000, "written ahead of time");
    drop(a);
    let a = open();
    assert_eq!(a.guaranteed_since(), since);
    site.clock.advance(WINDOW);
    assert!(a.guaranteed_since() > since);
}

/// A server that restarts with nothing forgets no more than it must: its log counts anew, and is read.
#[test]
fn forgetting_goes_on_after_a_restart() {
    let site = Site::new();
    let store = || site.builder().forget_lag(Duration::from_millis(200)).in_memory().unwrap();
    let (a, b) = (store(), store());
    for number in 0..20 {
        assert!(is_new(&a, &number.to_string()));
        assert!(a.forget(number.to_string()).unwrap());
    }
    assert!(is_new(&a, "1"));
    assert!(!is_new(&b, "1"));
    site.server.restart(None);
    assert!(is_new(&b, "2"));
    b.forget("1").unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert!(is_new(&a, "1"));
}

/// A backup may have a row that was forgotten since.
#[test]
fn what_was_forgotten_does_not_come_back_with_a_backup() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    for key in ["1", "2", "3"] {
        assert!(is_new(&a, key));
    }
    let backup = site.server.snapshot();
    assert!(a.forget("1").unwrap() && a.forget("2").unwrap());
    assert!(is_new(&b, "2"));
    assert!(!is_new(&a, "2"));
    site.server.restart(Some(backup));
    // Some answer shows that the server was restarted.
    assert!(!b.contains("probe").unwrap());
    eventually("a hears of it", || a.contains("probe").is_ok() && !b.contains("1").unwrap());
    assert!(is_new(&b, "1"));
    assert!(!is_new(&a, "2") && !is_new(&b, "2") && !is_new(&b, "3"));
}
