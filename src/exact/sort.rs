//! Sorting digests: they are uniform, so one pass of distribution leaves groups that fit the cache.

use crate::digest::Digest;

/// Average number of digests in a group.
const GROUP: usize = 2;
/// Below this the standard sort is as good.
const SMALL: usize = 512;
/// Digests may be moved so many places on average by the last pass; with more they are not uniform.
const MOST_MOVES: usize = 8;

/// Sorts and removes repetitions. `scratch` is working memory, its content does not matter.
///
/// O(n) for uniform digests: one distribution by the leading bits that differ, then one pass of
/// insertion over what is nearly sorted; O(n log n) for any others.
pub(crate) fn sort_unique(digests: &mut Vec<Digest>, scratch: &mut Vec<Digest>) {
    if digests.len() >= SMALL {
        distribute(digests, scratch);
        std::mem::swap(digests, scratch);
        if !insertion_sort(digests) {
            digests.sort_unstable();
        }
    } else {
        digests.sort_unstable();
    }
    digests.dedup();
}

/// Writes the digests to `out`, those of smaller groups first.
fn distribute(digests: &[Digest], out: &mut Vec<Digest>) {
    let (least, most) =
        digests.iter().fold((u64::MAX, 0), |(least, most), d| (least.min(d.hi), most.max(d.hi)));
    let groups = (digests.len() / GROUP).next_power_of_two();
    // The group of a digest is linear in its place between the least and the most.
    let span = u128::from(most - least) + 1;
    let scale = ((groups as u128) << 64) / span;
    let scale = u64::try_from(scale).unwrap_or(u64::MAX);
    let group = |d: &Digest| {
        (((u128::from(d.hi - least) * u128::from(scale)) >> 64) as usize).min(groups - 1)
    };
    let mut next = vec![0_u32; groups];
    for digest in digests {
        next[group(digest)] += 1;
    }
    let mut start = 0;
    for next in &mut next {
        start += std::mem::replace(next, start);
    }
    out.resize(digests.len(), Digest { hi: 0, lo: 0 });
    for digest in digests {
        let at = &mut next[group(digest)];
        out[*at as usize] = *digest;
        *at += 1;
    }
}

/// Sorts what is nearly sorted; gives up when it is not.
fn insertion_sort(digests: &mut [Digest]) -> bool {
    let mut moves = digests.len() * MOST_MOVES;
    for at in 1..digests.len() {
        let digest = digests[at];
        let mut place = at;
        while place > 0 && digests[place - 1] > digest {
            digests[place] = digests[place - 1];
            place -= 1;
        }
        digests[place] = digest;
        match moves.checked_sub(at - place) {
            Some(left) => moves = left,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(digests: Vec<Digest>) {
        let mut expected = digests.clone();
        expected.sort();
        expected.dedup();
        let mut sorted = digests;
        sort_unique(&mut sorted, &mut Vec::new());
        assert_eq!(sorted, expected);
    }

    #[test]
    fn sorts_uniform_clustered_equal_and_extreme_digests() {
        let mix = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n << 7);
        for len in [0, 1, 2, 511, 512, 513, 5_000] {
            check((0..len).map(|n| Digest::new(mix(n), mix(n + 1))).collect());
            check((0..len).map(|n| Digest::new(mix(n % 7), 1)).collect());
            check((0..len).map(|n| Digest::new(7, mix(n % 50))).collect());
            check((0..len).map(|n| Digest::new(u64::MAX - n % 2 * (u64::MAX - 1), n)).collect());
            check((0..len).map(|n| Digest::new(n + 1, n)).collect());
        }
    }
}
