//! What the facades `metrics` and `tracing` are told, as an operator would read it.

mod common;

use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use common::fast_dir;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use onceonly::authority::memory::{Fault, MemoryAuthority};
use onceonly::{Dedup, OnOutage, Ownership, Verdict};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

const WINDOW: Duration = Duration::from_secs(3600);

/// The recorder of this process.
fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap())
}

/// Events of this process, each as a line.
fn events() -> Arc<Mutex<Vec<String>>> {
    static EVENTS: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();
    let install = || {
        let events = Arc::new(Mutex::default());
        let layer = Lines(Arc::clone(&events));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        events
    };
    Arc::clone(EVENTS.get_or_init(install))
}

struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "onceonly" {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let asked = Instant::now();
    while !is_so() {
        assert!(asked.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn meters_say_what_the_statistics_say() {
    let recorder = recorder();
    let dir = fast_dir();
    let store = Dedup::builder().window(WINDOW).open(dir.path()).unwrap();
    for key in 0..100_u32 {
        assert_eq!(store.observe(key.to_le_bytes()).unwrap(), Verdict::New);
    }
    for key in 0..30_u32 {
        assert_eq!(store.observe(key.to_le_bytes()).unwrap(), Verdict::Duplicate);
    }
    store.close().unwrap();
    let label = format!("store=\"{}\"", dir.path().display());
    let text = recorder.render();
    let has = |name: &str, more: &str, value: &str| {
        let line = format!("{name}{{{label}{more}}} {value}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    };
    has("onceonly_verdicts_total", ",verdict=\"new\"", "100\n");
    has("onceonly_verdicts_total", ",verdict=\"duplicate\"", "30\n");
    has("onceonly_decided_total", ",tier=\"filter\"", "100\n");
    has("onceonly_decided_total", ",tier=\"exact\"", "30\n");
    has("onceonly_claims_total", ",event=\"granted\"", "0\n");
    has("onceonly_filter_positives_total", "", "30\n");
    has("onceonly_keys_live", "", "100\n");
    has("onceonly_slices_incomplete", "", "");
    has("onceonly_coverage_age_seconds", "", "0.");
    assert!(text.contains("# HELP onceonly_memory_bytes Resident bytes of the store."), "{text}");
}

#[test]
fn meters_are_kept_up_to_date_while_the_store_is_open() {
    let recorder = recorder();
    let store = Dedup::builder().window(WINDOW).in_memory().unwrap();
    let guard = store.claim("held").unwrap();
    eventually("a heartbeat publishes", || {
        let text = recorder.render();
        text.lines().any(|line| {
            line.starts_with("onceonly_claims_held{store=\"(memory)") && line.ends_with(" 1")
        })
    });
    drop(guard);
}

#[test]
fn an_outage_is_told_and_counted() {
    let (recorder, events) = (recorder(), events());
    let server = Arc::new(MemoryAuthority::new());
    let store = Dedup::builder()
        .window(WINDOW)
        .authority(Arc::clone(&server), Ownership::Shared)
        .secret([7; 32])
        .authority_space("telemetry")
        .authority_deadline(Duration::from_millis(200))
        .on_outage(OnOutage::AssumeNew)
        .in_memory()
        .unwrap();
    assert_eq!(store.observe("before").unwrap(), Verdict::New);
    server.outage(Some(Fault::Refuse));
    for key in 0..10_u32 {
        assert_eq!(store.observe(key.to_le_bytes()).unwrap(), Verdict::New);
    }
    server.heal();
    eventually("calls are made again", || {
        store.observe("again").is_ok()
            && store.stats().authority.unwrap().breaker == onceonly::BreakerState::Closed
    });
    store.close().unwrap();
    let text = recorder.render();
    let counts =
        |name: &str| text.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
    assert!(counts("onceonly_outage_assumed_new_total"), "{text}");
    assert!(counts("onceonly_authority_failed_calls_total"), "{text}");
    assert!(counts("onceonly_authority_batch_rows_count"), "{text}");
    assert!(counts("onceonly_authority_call_seconds_count"), "{text}");
    let events = events.lock().unwrap();
    let told = |text: &str| assert!(events.iter().any(|event| event.contains(text)), "{events:#?}");
    told("WARN message=the authority does not answer authority=");
    told("WARN message=the authority does not answer: keys are assumed to be new");
    told("INFO message=the authority answers again");
}

#[test]
fn opening_and_closing_are_told() {
    let (events, dir) = (events(), fast_dir());
    let open = || Dedup::builder().window(WINDOW).open(dir.path()).unwrap();
    open().close().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not a part of it").unwrap();
    drop(open());
    let events = events.lock().unwrap();
    let path = dir.path().display().to_string();
    let ours: Vec<_> = events.iter().filter(|event| event.contains(&path)).collect();
    let told = |text: &str| assert!(ours.iter().any(|event| event.contains(text)), "{ours:#?}");
    told("INFO message=opened");
    told("created=true");
    told("created=false clean_close=true");
    told("INFO message=closed");
    told("WARN message=a file was set aside");
}

/// Of a store that shares its keys the authority decides what is not known here.
#[test]
fn the_tier_that_decides_is_told() {
    let (recorder, dir) = (recorder(), fast_dir());
    let store = Dedup::builder()
        .window(WINDOW)
        .authority(MemoryAuthority::new(), Ownership::Shared)
        .secret([7; 32])
        .authority_space("tiers")
        .open(dir.path().join("tiers"))
        .unwrap();
    for verdict in [Verdict::New, Verdict::Duplicate, Verdict::Duplicate] {
        for key in 0..20_u32 {
            assert_eq!(store.observe(key.to_le_bytes()).unwrap(), verdict);
        }
    }
    store.close().unwrap();
    let text = recorder.render();
    let has = |tier: &str, count: u32| {
        let line = format!("tiers\",tier=\"{tier}\"}} {count}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    };
    has("filter", 0);
    has("exact", 40);
    has("authority", 20);
}
