//! The filter against sets of digests: never a false negative, false positives as computed.

use super::*;

fn digest(n: u64) -> Digest {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    Digest::new(mix(n.wrapping_mul(2)), mix(n.wrapping_mul(2) + 1))
}

fn filter(keys: u64, slices: u32) -> Filter {
    let blocks = sizing::blocks_for(keys, slices, 0.01);
    let region = Region::heap(Filter::bytes(blocks) as usize).unwrap();
    Filter::new(region, blocks, Columns::for_slices(slices))
}

/// Runs `slices * 3` slices of keys through the filter, and asks for every live key in each.
fn rotate_through(slices: u32, per_slice: u64) {
    let filter = filter(per_slice * u64::from(slices), slices);
    let columns = filter.columns();
    for newest in 300..300 + u64::from(slices) * 3 {
        let keys = |slice: u64| (slice * per_slice..(slice + 1) * per_slice).map(digest);
        for key in keys(newest) {
            filter.insert(filter.place(key), columns.of(newest), newest);
        }
        let oldest = newest.saturating_sub(u64::from(slices)).max(300);
        for slice in oldest..=newest {
            for key in keys(slice) {
                let mask = filter.probe(filter.place(key), newest);
                assert!(mask >> columns.of(slice) & 1 == 1, "{slices} slices, {slice} of {newest}");
            }
        }
    }
}

#[test]
fn no_live_key_is_ever_missed() {
    let all = [1, 2, 3, 5, 7, 8, 15, 20, 31, 40, 63];
    for slices in if cfg!(miri) { &[1, 3, 7, 8][..] } else { &all } {
        rotate_through(*slices, if cfg!(miri) { 3 } else { 200 });
    }
}

#[test]
#[cfg(not(miri))]
fn false_positives_are_as_rare_as_computed() {
    for slices in [1, 3, 7, 15, 63] {
        let per_slice = 40_000 / u64::from(slices);
        let filter = filter(40_000, slices);
        let newest = 1_000 + u64::from(slices);
        for slice in 1_000..=newest {
            for n in 0..per_slice {
                let place = filter.place(digest(slice << 32 | n));
                filter.insert(place, filter.columns().of(slice), slice);
            }
        }
        let asked = 200_000;
        let positive = (0..asked)
            .filter(|n| filter.probe(filter.place(digest(1 << 60 | n)), newest) != 0)
            .count();
        let rate = positive as f64 / asked as f64;
        assert!(rate < 0.014 && rate > 0.002, "{slices} slices: {rate}");
    }
}

#[test]
fn a_column_is_empty_when_its_slice_begins_again() {
    let filter = filter(64, 7);
    let key = digest(1);
    filter.insert(filter.place(key), filter.columns().of(5), 5);
    assert_eq!(filter.probe(filter.place(key), 5), 1 << 5);
    assert_eq!(filter.probe(filter.place(key), 12), 1 << 5, "the last slice of the window");
    assert_eq!(filter.probe(filter.place(key), 13), 0, "its column belongs to slice 13 now");
    filter.insert(filter.place(key), filter.columns().of(13), 13);
    assert_eq!(filter.probe(filter.place(key), 13), 1 << 5);
}

#[test]
fn a_wrapped_epoch_keeps_bits_and_loses_none() {
    let filter = filter(64, 3);
    let key = digest(9);
    filter.insert(filter.place(key), filter.columns().of(4), 4);
    let later = 4 + 256;
    filter.insert(filter.place(key), filter.columns().of(later), later);
    assert!(filter.probe(filter.place(key), later) >> filter.columns().of(later) & 1 == 1);
}

#[test]
fn fill_counts_what_was_set() {
    let filter = filter(1_000, 7);
    for n in 0..500 {
        filter.insert(filter.place(digest(n)), 2, 0);
    }
    let mut sample = Sample::default();
    filter.sample(u32::MAX, &mut sample);
    let fill = sample.fill(1 << 2);
    assert!(fill > 0.05 && fill < 0.9);
    assert_eq!(sample.fill(u64::MAX), fill);
    assert_eq!(sample.fill(1 << 3), 0.0);
    assert_eq!(Sample::default().fill(u64::MAX), 0.0);
}

/// Statistics are asked for every few seconds: they may not bring in pages from all over a filter.
#[test]
fn a_sample_looks_at_neighbouring_blocks_only() {
    let filter = filter(if cfg!(miri) { 500 } else { 100_000 }, 7);
    let (most, newest) = (8, 0);
    for n in 0..if cfg!(miri) { 500 } else { 100_000 } {
        let place = filter.place(digest(n));
        if place.block >= most {
            filter.insert(place, 2, newest);
        }
    }
    let mut sample = Sample::default();
    filter.sample(most, &mut sample);
    assert_eq!(sample.fill(u64::MAX), 0.0);
    filter.sample(u32::MAX, &mut sample);
    assert!(sample.fill(u64::MAX) > 0.05);
}
