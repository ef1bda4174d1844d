//! How large a filter has to be.
//!
//! With λ keys of one slice in a lane of a block, the number of keys is Poisson distributed, and a
//! column with j keys answers falsely with probability (1 - (1 - 1/r)^(k·j))^k for r rows and k
//! hashes. The rate of the whole window is the sum over its columns (Putze et al. 2007, section 3).

use super::{BLOCK, Columns};

/// Columns that hold keys on average: all whole slices, and half of the current one.
fn live_columns(slices: u32) -> f64 {
    f64::from(slices) + 0.5
}

/// False-positive rate of the whole window with `load` keys of one slice in a lane.
pub(crate) fn false_positive_rate(columns: Columns, slices: u32, load: f64) -> f64 {
    let rows = columns.usable_rows() as f64;
    let hashes = columns.hashes() as f64;
    let miss = (1.0 - 1.0 / rows).ln();
    let most = (load + 12.0 * load.sqrt() + 30.0) as u32;
    let mut poisson = (-load).exp();
    let mut column = 0.0;
    for keys in 1..=most {
        poisson *= load / f64::from(keys);
        let fill = 1.0 - (miss * hashes * f64::from(keys)).exp();
        column += poisson * fill.powf(hashes);
    }
    (column * live_columns(slices)).min(1.0)
}

/// The greatest load of a lane, in keys of one slice, that keeps to `rate`.
fn load_for(columns: Columns, slices: u32, rate: f64) -> f64 {
    let (mut low, mut high) = (1e-4, 64.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if false_positive_rate(columns, slices, middle) > rate {
            high = middle;
        } else {
            low = middle;
        }
    }
    low
}

/// Keys per window that one block serves at `rate`.
pub(crate) fn keys_per_block(slices: u32, rate: f64) -> f64 {
    let columns = Columns::for_slices(slices);
    load_for(columns, slices, rate) * f64::from(slices) * f64::from(columns.lanes())
}

/// Blocks for `keys` per window at `rate`; at least one.
pub(crate) fn blocks_for(keys: u64, slices: u32, rate: f64) -> u32 {
    let blocks = (keys as f64 / keys_per_block(slices, rate)).ceil();
    // 2^32 blocks of one shard are 512 GiB; the cast saturates below that.
    (blocks as u32).clamp(1, u32::MAX - 1)
}

/// Filter bytes per key of the window.
pub(crate) fn bytes_per_key(slices: u32, rate: f64) -> f64 {
    BLOCK as f64 / keys_per_block(slices, rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_about_four_bytes_a_key() {
        let bytes = bytes_per_key(7, 0.001);
        assert!((3.5..4.8).contains(&bytes), "{bytes}");
    }

    #[test]
    fn sizes_grow_with_keys_slices_and_strictness() {
        assert!(bytes_per_key(7, 0.0001) > bytes_per_key(7, 0.001));
        assert!(bytes_per_key(15, 0.001) > bytes_per_key(7, 0.001));
        assert!(bytes_per_key(63, 0.001) > bytes_per_key(31, 0.001));
        assert_eq!(blocks_for(1, 7, 0.5), 1);
        for slices in 1..=63 {
            let rate = 0.001;
            let columns = Columns::for_slices(slices);
            let load = load_for(columns, slices, rate);
            assert!(false_positive_rate(columns, slices, load) <= rate * 1.0001);
            assert!(false_positive_rate(columns, slices, load * 1.01) > rate);
        }
    }
}
