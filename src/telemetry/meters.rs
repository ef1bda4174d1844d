//! Meters of the crate `metrics`: the handles, made once, and what goes into them.
//!
//! A store's numbers are those of its `Stats`, published by its heartbeat: no call counts anything twice,
//! and none is slower for it.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label};

use crate::stats::{AuthorityStats, BreakerState, Stats};

/// Name, a label beside the store's if there is one, description, and where the number is.
type Meter<S, T> = (&'static str, Option<(&'static str, &'static str)>, &'static str, fn(&S) -> T);

const fn label(key: &'static str, value: &'static str) -> Option<(&'static str, &'static str)> {
    Some((key, value))
}

const VERDICTS: &str = "Answers of a store.";
const TIERS: &str = "Answers by the tier that decided.";
const SHADOW: &str = "Messages let through in shadow mode, by what the store said of them.";
const CLAIMS: &str = "Claims by what became of them.";

const COUNTERS: [Meter<Stats, u64>; 21] = [
    ("onceonly_verdicts_total", label("verdict", "new"), VERDICTS, |s| s.new),
    ("onceonly_verdicts_total", label("verdict", "duplicate"), VERDICTS, |s| s.duplicate),
    ("onceonly_verdicts_total", label("verdict", "too_old"), VERDICTS, |s| s.too_old),
    ("onceonly_verdicts_total", label("verdict", "in_flight"), VERDICTS, |s| s.in_flight),
    ("onceonly_decided_total", label("tier", "filter"), TIERS, |s| match shared(s) {
        Some(_) => 0,
        None => s.filter_negative,
    }),
    ("onceonly_decided_total", label("tier", "exact"), TIERS, |s| match shared(s) {
        Some(authority) => authority.answered_here,
        None => s.filter_positive,
    }),
    ("onceonly_decided_total", label("tier", "authority"), TIERS, |s| match shared(s) {
        Some(authority) => (s.new + s.duplicate).saturating_sub(authority.answered_here),
        None => 0,
    }),
    ("onceonly_claims_total", label("event", "granted"), CLAIMS, |s| s.claims_granted),
    ("onceonly_claims_total", label("event", "committed"), CLAIMS, |s| s.claims_committed),
    ("onceonly_claims_total", label("event", "abandoned"), CLAIMS, |s| s.claims_abandoned),
    ("onceonly_shadowed_total", label("verdict", "duplicate"), SHADOW, |s| s.shadow.duplicate),
    ("onceonly_shadowed_total", label("verdict", "too_old"), SHADOW, |s| s.shadow.too_old),
    ("onceonly_shadowed_total", label("verdict", "conflict"), SHADOW, |s| s.shadow.conflict),
    ("onceonly_shadowed_total", label("verdict", "in_flight"), SHADOW, |s| s.shadow.in_flight),
    ("onceonly_shadowed_total", label("verdict", "error"), SHADOW, |s| s.shadow.failed),
    ("onceonly_forgotten_total", None, "Keys that were forgotten.", |s| s.forgotten),
    ("onceonly_refreshed_total", None, "Duplicates that were recorded again.", |s| s.refreshed),
    ("onceonly_filter_positives_total", None, "Keys that the filter suspected.", |s| {
        s.filter_positive
    }),
    (
        "onceonly_filter_false_positives_total",
        None,
        "Suspected keys that the exact set did not hold.",
        |s| s.filter_false_positive,
    ),
    ("onceonly_background_errors_total", None, "Work in the background that failed.", |s| {
        s.background_errors
    }),
    ("onceonly_damage_total", None, "Damage that was found when the store was opened.", |s| {
        s.recovery.damage.len() as u64
    }),
];

/// The authority of a store that shares its keys: it decides whatever is not known here to be a duplicate.
/// The only writer of a space decides alone.
fn shared(stats: &Stats) -> Option<&AuthorityStats> {
    stats.authority.as_ref().filter(|_| stats.owner.is_none())
}

const GAUGES: [Meter<Stats, f64>; 9] = [
    ("onceonly_keys_live", None, "Keys that are live.", |s| s.keys_live as f64),
    ("onceonly_claims_held", None, "Claims in flight.", |s| s.claims_held as f64),
    (
        "onceonly_filter_false_positive_rate",
        None,
        "Measured: suspected in vain, over all that were new.",
        |s| s.false_positive_rate,
    ),
    ("onceonly_filter_fill", None, "Share of the filter's bits that are set.", |s| s.filter_fill),
    ("onceonly_filter_capacity_keys", None, "Keys that the filter is sized for.", |s| {
        s.filter_capacity as f64
    }),
    ("onceonly_filters_rebuilding", None, "Filters that are being built.", |s| {
        s.filters_rebuilding as f64
    }),
    ("onceonly_memory_bytes", None, "Resident bytes of the store.", |s| s.memory_bytes as f64),
    ("onceonly_disk_bytes", None, "Bytes of the store's files.", |s| s.disk_bytes as f64),
    ("onceonly_slices_incomplete", None, "Live slices that are not complete.", |s| {
        s.slices.iter().filter(|slice| !slice.complete).count() as f64
    }),
];

const AUTHORITY_COUNTERS: [Meter<AuthorityStats, u64>; 6] = [
    ("onceonly_authority_calls_total", None, "Calls of the authority.", |a| a.calls),
    ("onceonly_authority_rows_total", None, "Keys in calls of the authority.", |a| a.rows),
    ("onceonly_authority_failed_calls_total", None, "Calls that failed.", |a| a.failed_calls),
    (
        "onceonly_authority_undecided_calls_total",
        None,
        "Calls of which it is not known whether they were carried out.",
        |a| a.undecided_calls,
    ),
    (
        "onceonly_authority_answered_here_total",
        None,
        "Keys that were known to be duplicates, and not asked for.",
        |a| a.answered_here,
    ),
    (
        "onceonly_outage_assumed_new_total",
        None,
        "Keys that were answered without the authority, by the policy for outages.",
        |a| a.assumed_new,
    ),
];

const AUTHORITY_GAUGES: [Meter<AuthorityStats, f64>; 2] = [
    ("onceonly_authority_waiting", None, "Calls that wait for their turn.", |a| a.waiting as f64),
    (
        "onceonly_authority_breaker",
        None,
        "0: calls are made, 1: none for a while, 0.5: the next one decides.",
        |a| match a.breaker {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 0.5,
            BreakerState::Open => 1.0,
        },
    ),
];

fn labels(store: &str, label: Option<(&'static str, &'static str)>) -> Vec<Label> {
    let of_store = Label::new("store", store.to_owned());
    let more = label.map(|(key, value)| Label::from_static_parts(key, value));
    std::iter::once(of_store).chain(more).collect()
}

struct Table<S: 'static, T: 'static, H> {
    meters: &'static [Meter<S, T>],
    handles: Vec<H>,
}

impl<S> Table<S, u64, Counter> {
    fn counters(store: &str, meters: &'static [Meter<S, u64>]) -> Self {
        let handles = meters.iter().map(|(name, label, description, _)| {
            metrics::describe_counter!(*name, *description);
            metrics::counter!(*name, labels(store, *label))
        });
        Table { meters, handles: handles.collect() }
    }

    fn publish(&self, stats: &S) {
        for ((.., read), handle) in self.meters.iter().zip(&self.handles) {
            handle.absolute(read(stats));
        }
    }
}

impl<S> Table<S, f64, Gauge> {
    fn gauges(store: &str, meters: &'static [Meter<S, f64>]) -> Self {
        let handles = meters.iter().map(|(name, label, description, _)| {
            metrics::describe_gauge!(*name, *description);
            metrics::gauge!(*name, labels(store, *label))
        });
        Table { meters, handles: handles.collect() }
    }

    fn publish(&self, stats: &S) {
        for ((.., read), handle) in self.meters.iter().zip(&self.handles) {
            handle.set(read(stats));
        }
    }
}

type OfAuthority = (Table<AuthorityStats, u64, Counter>, Table<AuthorityStats, f64, Gauge>);

struct Handles {
    counters: Table<Stats, u64, Counter>,
    gauges: Table<Stats, f64, Gauge>,
    coverage: Gauge,
    authority: OnceLock<OfAuthority>,
}

impl Handles {
    fn new(store: &str) -> Self {
        let coverage = "onceonly_coverage_age_seconds";
        metrics::describe_gauge!(
            coverage,
            metrics::Unit::Seconds,
            "For how long back `New` proves that nothing was acknowledged; the window, unless there is a hole."
        );
        Handles {
            counters: Table::counters(store, &COUNTERS),
            gauges: Table::gauges(store, &GAUGES),
            coverage: metrics::gauge!(coverage, labels(store, None)),
            authority: OnceLock::new(),
        }
    }
}

/// The meters of a store. Its handles are of the recorder that is installed when it is first published.
#[derive(Default)]
pub(crate) struct StoreMeters {
    handles: OnceLock<Handles>,
}

impl StoreMeters {
    /// Sets all meters; `store` is the label by which the store is told from others, and `now` tells its
    /// numbers and for how long back they vouch.
    pub(crate) fn publish(&self, store: &str, now: impl FnOnce() -> (Stats, Duration)) {
        let handles = self.handles.get_or_init(|| Handles::new(store));
        let (stats, coverage) = now();
        handles.counters.publish(&stats);
        handles.gauges.publish(&stats);
        handles.coverage.set(coverage.as_secs_f64());
        if let Some(authority) = &stats.authority {
            let (counters, gauges) = handles.authority.get_or_init(|| {
                let counters = Table::counters(store, &AUTHORITY_COUNTERS);
                (counters, Table::gauges(store, &AUTHORITY_GAUGES))
            });
            counters.publish(authority);
            gauges.publish(authority);
        }
    }
}

/// The meters of an authority's calls.
#[derive(Default)]
pub(crate) struct CallMeters {
    handles: OnceLock<(Histogram, Histogram)>,
}

impl CallMeters {
    /// Counts a call of `rows` keys; `authority` is the name of what was called.
    pub(crate) fn count(&self, authority: &str, rows: usize, took: Duration) {
        let (sizes, times) = self.handles.get_or_init(|| {
            let (size, time) = ("onceonly_authority_batch_rows", "onceonly_authority_call_seconds");
            metrics::describe_histogram!(size, "Keys of one call of an authority.");
            metrics::describe_histogram!(time, metrics::Unit::Seconds, "Duration of a call.");
            let labels = vec![Label::new("authority", authority.to_owned())];
            (metrics::histogram!(size, labels.clone()), metrics::histogram!(time, labels))
        });
        sizes.record(rows as f64);
        times.record(took.as_secs_f64());
    }
}
