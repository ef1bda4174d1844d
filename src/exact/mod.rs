//! The exact set: digests of a slice, unsealed (in the journal, indexed in memory) and sealed
//! (immutable ordered files); and what is kept with sealed marks.

pub(crate) mod index;
pub(crate) mod merge;
pub(crate) mod run;
pub(crate) mod sort;
pub(crate) mod values;
