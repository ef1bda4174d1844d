use std::time::{Duration, Instant};

use super::*;
use crate::authority::memory::MemoryAuthority;
use crate::config::{Builder, Ownership};
use crate::engine::open_in_memory;

/// Between the look at the segments that are sealed and the naming of their files everything is named to be
/// written again: that cannot name those files, and takes back what the segments have of acknowledgements.
#[test]
fn files_that_are_named_when_all_is_to_be_written_again_are_too() {
    let builder = Builder::default()
        .window(Duration::from_secs(60))
        .secret([7; 32])
        .authority(MemoryAuthority::new(), Ownership::Exclusive)
        .authority_space("orders");
    let engine = open_in_memory(builder.settings.validate().unwrap()).unwrap();
    let owner = engine.owned.get().unwrap();
    for n in 0..300_u64 {
        let digest = engine.root_hasher().digest(&n.to_le_bytes());
        let _ = engine.observe(digest, OnOutage::Fail).unwrap();
    }
    let begun = Instant::now();
    while engine.keys_to_write(owner) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is never written");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sealed: Vec<u64> = engine.segments_in_use().iter().map(|segment| segment.id).collect();
    let unsent = engine.unsent(&sealed);
    assert!(!engine.are_unsent(unsent));
    engine.begin_again(owner, 1).unwrap();
    assert!(engine.are_unsent(unsent));
    // Who seals later sees the segments as they are, whether or not they were written meanwhile.
    let later = engine.unsent(&sealed);
    assert_eq!(engine.are_unsent(later), engine.is_unsent(&sealed));
}
