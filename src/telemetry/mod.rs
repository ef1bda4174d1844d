//! What a store tells the outside, by the facades of the crates `metrics` and `tracing`. Each is behind
//! the feature of its name; without it nothing of it is there.

pub(crate) mod events;
#[cfg(feature = "metrics")]
mod meters;

#[cfg(feature = "metrics")]
pub(crate) use meters::{CallMeters, StoreMeters};
#[cfg(not(feature = "metrics"))]
pub(crate) use none::{CallMeters, StoreMeters};

/// In place of meters where nobody reads them.
#[cfg(not(feature = "metrics"))]
mod none {
    use std::time::Duration;

    use crate::stats::Stats;

    #[derive(Default)]
    pub(crate) struct StoreMeters(());

    impl StoreMeters {
        pub(crate) fn publish(&self, _: &str, _: impl FnOnce() -> (Stats, Duration)) {}
    }

    #[derive(Default)]
    pub(crate) struct CallMeters(());

    impl CallMeters {
        pub(crate) fn count(&self, _: &str, _rows: usize, _took: Duration) {}
    }
}
