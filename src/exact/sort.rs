//! Sorting digests: they are uniform, so one pass of distribution leaves groups that fit the cache.

use crate::digest::Digest;

/// Average number of digests in a group.
const GROUP: usize = 8;
/// Below this the standard sort is as good.
const SMALL: usize = 512;

/// Sorts and removes repetitions. `scratch` is working memory, its content does not matter.
///
/// O(n) for uniform digests: one distribution by the leading bits that differ, then a sort of each
/// group; O(n log n) for any others.
pub(crate) fn sort_unique(digests: &mut Vec<Digest>, scratch: &mut Vec<Digest>) {
    if digests.len() >= SMALL {
        distribute(digests, scratch);
    } else {
        digests.sort_unstable();
    }
    digests.dedup();
}

fn distribute(digests: &mut [Digest], scratch: &mut Vec<Digest>) {
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
    let mut starts = vec![0_u32; groups + 1];
    for digest in digests.iter() {
        starts[group(digest) + 1] += 1;
    }
    for at in 1..=groups {
        starts[at] += starts[at - 1];
    }
    scratch.clear();
    scratch.resize(digests.len(), Digest { hi: 0, lo: 0 });
    let mut next = starts.clone();
    for digest in digests.iter() {
        let at = &mut next[group(digest)];
        scratch[*at as usize] = *digest;
        *at += 1;
    }
    for bounds in starts.windows(2) {
        let group = &mut scratch[bounds[0] as usize..bounds[1] as usize];
        // Groups are a few digests, unless the digests are not uniform.
        if group.len() <= 4 * GROUP { insertion_sort(group) } else { group.sort_unstable() }
    }
    digests.copy_from_slice(scratch);
}

fn insertion_sort(group: &mut [Digest]) {
    for at in 1..group.len() {
        let digest = group[at];
        let mut place = at;
        while place > 0 && group[place - 1] > digest {
            group[place] = group[place - 1];
            place -= 1;
        }
        group[place] = digest;
    }
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
