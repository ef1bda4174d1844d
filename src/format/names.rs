//! File names: built and parsed here alone.

/// Held by the owner; contains its process id.
pub(crate) const LOCK: &str = "LOCK";
/// Identity, digest and secret; written once.
pub(crate) const STORE: &str = "STORE";
/// Which files are live; replaced whole.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// Anchors of time, two alternating slots.
pub(crate) const CLOCK: &str = "CLOCK";
/// Where files that are not ours are moved.
pub(crate) const SET_ASIDE: &str = "set-aside";

/// The kinds of numbered files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Journal,
    Run,
    Filter,
    Log,
    Values,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Journal, "journal-"),
    (Kind::Run, "run-"),
    (Kind::Filter, "filter-"),
    (Kind::Log, "log-"),
    (Kind::Values, "values-"),
];

pub(crate) fn numbered(kind: Kind, id: u64) -> String {
    let prefix = KINDS.iter().find(|(k, _)| *k == kind).map_or("", |(_, prefix)| prefix);
    format!("{prefix}{id:016x}")
}

pub(crate) fn parse(name: &str) -> Option<(Kind, u64)> {
    KINDS.iter().find_map(|(kind, prefix)| {
        let digits = name.strip_prefix(prefix)?;
        let id = u64::from_str_radix(digits, 16).ok()?;
        (numbered(*kind, id) == name).then_some((*kind, id))
    })
}

/// The name under which a file is written before it is renamed.
pub(crate) fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// Whether this engine writes files of that name.
pub(crate) fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    [LOCK, STORE, MANIFEST, CLOCK, SET_ASIDE].contains(&name) || parse(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_they_are_built_and_no_others() {
        for kind in [Kind::Journal, Kind::Run, Kind::Filter, Kind::Log, Kind::Values] {
            assert_eq!(parse(&numbered(kind, 0xfeed)), Some((kind, 0xfeed)));
        }
        for foreign in
            ["run-1", "run-000000000000000G", "journal-", "notes.txt", "run-+00000000000001"]
        {
            assert_eq!(parse(foreign), None);
            assert!(!is_ours(foreign));
        }
        assert!(is_ours("MANIFEST.tmp"));
    }
}
