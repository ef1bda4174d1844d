//! The public face, name by name: every call with the types that it is documented with. Most of this
//! is checked by compiling it.

use std::error::Error as StdError;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use onceonly::{
    BatchError, Builder, Claim, ClaimGuard, ClaimInfo, ClaimOptions, Clock, CommitError, Dedup,
    DigestKind, Durability, Error, Explanation, Key, ManualClock, Outcome, Plan, ProcessError,
    RecoveryReport, Result, Scope, Stats, SystemClock, Timestamp, Verdict,
};

/// Every setter takes what it is documented to take and cannot fail.
fn every_setter(secret: [u8; 32], clock: &ManualClock) -> Builder {
    let (slices, shards): (u32, usize) = (6, 4);
    let (keys, limit): (u64, u64) = (50_000, 200_000);
    let builder: Builder = Dedup::builder()
        .window(Duration::from_secs(3600))
        .slices(slices)
        .expected_keys(keys)
        .false_positive_rate(0.001_f64)
        .durability(Durability::Interval(Duration::from_millis(100)))
        .durability(Durability::Sync)
        .durability(Durability::Process)
        .digest(DigestKind::SipHash13)
        .digest(DigestKind::Xxh3)
        .secret(secret)
        .max_keys(limit)
        .refresh_on_duplicate(false)
        .event_time(false)
        .max_event_lead(Duration::from_secs(60))
        .lease(Duration::from_secs(30))
        .lock_wait(Duration::ZERO)
        .allow_any_filesystem(false)
        .shards(shards);
    builder.clock(SystemClock).clock(clock.clone())
}

/// The calls of one namespace, of the root by `Deref`.
fn every_call_of_a_scope(scope: &Scope) -> std::result::Result<(), Box<dyn StdError>> {
    let verdict: Verdict = scope.observe(b"bytes")?;
    assert_eq!(verdict, Verdict::New);
    let _: Result<Verdict> = scope.observe("text");
    let _: Result<Verdict> = scope.observe(String::from("owned"));
    let _: Result<Verdict> = scope.observe(vec![0_u8; 3]);
    let _: Result<Verdict> = scope.observe(Key::from_fields(&[b"a", b"bc"]));
    let verdicts: std::result::Result<Vec<Verdict>, BatchError> = scope.observe_batch(&["a", "b"]);
    let mut verdicts = verdicts?;
    let into: std::result::Result<(), BatchError> =
        scope.observe_batch_into(&[[1_u8; 16], [2; 16]], &mut verdicts);
    into?;
    assert_eq!(verdicts, [Verdict::New; 2]);
    let live: bool = scope.contains("a")?;
    let several: Vec<bool> = scope.contains_batch(&["a", "nobody"])?;
    assert_eq!((live, several), (true, vec![true, false]));
    let () = scope.prefetch("next");
    let was_live: bool = scope.forget("a")?;
    assert!(was_live);
    let told: Explanation = scope.explain("b")?;
    assert!(!told.sightings.is_empty());
    every_claim(scope)
}

fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("{other:?}"),
    }
}

fn every_claim(scope: &Scope) -> std::result::Result<(), Box<dyn StdError>> {
    let guard: ClaimGuard = granted(scope.claim("claimed")?);
    let token: u64 = guard.token();
    let renewed: Result<()> = guard.renew();
    renewed?;
    match scope.claim("claimed")? {
        Claim::InFlight { lease_left, .. } => {
            let _: Duration = lease_left;
        }
        other => panic!("{other:?}"),
    }
    let committed: std::result::Result<(), CommitError> = guard.commit();
    committed?;
    assert!(matches!(scope.claim("claimed")?, Claim::Duplicate { .. }));
    let options = ClaimOptions::new().lease(Duration::from_secs(5)).note("how far it came");
    let next = granted(scope.claim_with("noted", options)?);
    assert!(next.token() > token);
    let () = next.abandon();
    let deadline: Instant = Instant::now();
    let waited: Claim = scope.claim_wait("noted", deadline)?;
    drop(waited);
    let claims: Vec<Claim> = scope.claim_batch(&["x", "y", "x"])?;
    assert!(matches!(claims[2], Claim::InFlight { .. }));
    let outcome: std::result::Result<Outcome<u8>, ProcessError<std::io::Error>> =
        scope.process_once("work", |guard: &ClaimGuard| Ok((guard.token() % 2) as u8));
    assert!(matches!(outcome?, Outcome::Done(_)));
    Ok(())
}

/// The calls of a whole store.
fn every_call_of_a_store(dedup: &Dedup) -> std::result::Result<(), Box<dyn StdError>> {
    let scope: Scope = dedup.scope("tenant");
    every_call_of_a_scope(&scope)?;
    every_call_of_a_scope(dedup)?;
    let since: Timestamp = dedup.guaranteed_since();
    assert!(since <= Timestamp::from(SystemTime::now()) || since.as_unix_nanos() > 0);
    let stats: Stats = dedup.stats();
    let _: &RecoveryReport = &stats.recovery;
    let guards: Vec<ClaimGuard> = ["p", "q"].map(|key| granted(dedup.claim(key).unwrap())).into();
    let claims: Vec<ClaimInfo> = dedup.claims()?;
    assert_eq!(claims.len(), 2);
    let results: Vec<std::result::Result<(), CommitError>> = dedup.commit_batch(guards);
    assert!(results.iter().all(std::result::Result::is_ok));
    let expired: Vec<ClaimGuard> = dedup.expired_claims()?;
    assert!(expired.is_empty());
    let synced: Result<()> = dedup.sync();
    synced?;
    let closed: Result<()> = dedup.close();
    closed?;
    let CommitError { .. } = match granted_then_closed() {
        Err(failed) => failed,
        Ok(()) => panic!("committed after the close"),
    };
    Ok(())
}

fn granted_then_closed() -> std::result::Result<(), CommitError> {
    let store = Dedup::builder().window(Duration::from_secs(1)).in_memory().unwrap();
    let guard = granted(store.claim("a").unwrap());
    store.close().unwrap();
    let failed = guard.commit().unwrap_err();
    let cause: &Error = failed.error();
    assert!(matches!(cause, Error::Closed));
    let (guard, cause): (ClaimGuard, Error) = failed.into_parts();
    assert!(matches!(cause, Error::Closed));
    guard.commit()
}

#[test]
fn every_call_has_the_documented_types() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(SystemTime::now());
    let plan: Plan = every_setter([1; 32], &clock).plan().unwrap();
    assert!(plan.memory_bytes > 0 && plan.disk_bytes > 0 && plan.files > 0);
    let path: PathBuf = dir.path().join("state/orders-0");
    let opened: [Result<Dedup>; 2] =
        [every_setter([1; 32], &clock).open(&path), every_setter([1; 32], &clock).in_memory()];
    for dedup in opened {
        every_call_of_a_store(&dedup.unwrap()).unwrap();
    }
    let by_text: Result<Dedup> = every_setter([1; 32], &clock).open(path.to_str().unwrap());
    drop(by_text.unwrap());
    let borrowed: &Path = &path;
    let by_path: Result<Dedup> = every_setter([1; 32], &clock).open(borrowed);
    drop(by_path.unwrap());
}

#[test]
fn calls_in_event_time_have_the_documented_types() {
    let clock = ManualClock::new(SystemTime::now());
    let builder = every_setter([1; 32], &clock).event_time(true);
    let store = builder.in_memory().unwrap();
    let now: Timestamp = SystemTime::now().into();
    let verdict: Result<Verdict> = store.observe_at("a", now);
    assert_eq!(verdict.unwrap(), Verdict::New);
    assert_eq!(store.observe_at("a", SystemTime::now()).unwrap(), Verdict::Duplicate);
    let early = Timestamp::from_unix_millis(1_i64);
    let batch: std::result::Result<Vec<Verdict>, BatchError> =
        store.observe_batch_at(&[("b", now), ("c", early)]);
    assert_eq!(batch.unwrap(), [Verdict::New, Verdict::TooOld]);
    let claim: Result<Claim> = store.claim_at("d", now);
    assert!(matches!(claim, Ok(Claim::Granted(_))));
    // The other mode.
    assert!(matches!(store.observe("a"), Err(Error::Mode { .. })));
    let failed = store.observe_batch(&["a"]).unwrap_err();
    assert!(matches!(failed.error(), Error::Mode { .. }));
    assert!(matches!(store.claim("a"), Err(Error::Mode { .. })));
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    assert!(matches!(store.observe_at("a", ahead), Err(Error::TimestampAhead { .. })));
    clock.leap_wall(-3_600_000_i64);
    clock.advance(Duration::from_secs(1));
}

#[test]
fn handles_and_answers_cross_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    fn handle<T: Clone + Send + Sync + 'static>() {}
    handle::<Dedup>();
    handle::<Scope>();
    handle::<Builder>();
    handle::<ManualClock>();
    shared::<ClaimGuard>();
    shared::<Claim>();
    shared::<CommitError>();
    shared::<BatchError>();
    shared::<Outcome<u8>>();
    shared::<ProcessError<std::io::Error>>();
    shared::<Stats>();
    shared::<Plan>();
    shared::<Explanation>();
    fn error<T: StdError + Send + Sync + 'static>() {}
    error::<Error>();
    error::<CommitError>();
    error::<BatchError>();
    error::<ProcessError<std::io::Error>>();
    fn clock<T: Clock>() {}
    clock::<SystemClock>();
    clock::<ManualClock>();
}

/// Compiles only while `$type` does not implement the trait: else the item is ambiguous.
macro_rules! assert_not_implemented {
    ($type:ty: $($bound:tt)+) => {{
        trait Ambiguous<Marker> {
            fn item() {}
        }
        struct Implemented;
        impl<T: ?Sized> Ambiguous<()> for T {}
        impl<T: ?Sized + $($bound)+> Ambiguous<Implemented> for T {}
        <$type as Ambiguous<_>>::item();
    }};
}

/// `?` must not throw away what a batch or a commit had decided.
#[test]
fn parts_are_never_lost_by_a_conversion() {
    assert_not_implemented!(Error: From<BatchError>);
    assert_not_implemented!(Error: From<CommitError>);
    assert_not_implemented!(ClaimGuard: Clone);
}

/// The public types that are exhaustive on purpose: a verdict for ever, an outcome because a handler
/// that forgets one loses a message, and wrappers without public fields.
const EXHAUSTIVE: [&str; 2] = ["Verdict", "Outcome"];

/// Other public enums, and structs with public fields, may grow.
#[test]
fn what_may_grow_is_non_exhaustive() {
    let mut checked = 0;
    for file in ["claim", "claim/outcome", "config", "digest", "error", "explain", "plan", "stats"]
        .into_iter()
        .chain(["time", "verdict", "adapter", "offline/inspect", "offline/verify"])
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{file}.rs"));
        let text = fs::read_to_string(path).unwrap();
        let mut attributes = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if line.starts_with("#[") {
                attributes.push_str(line);
                continue;
            }
            let is_enum = line.starts_with("pub enum ");
            let fields = || lines.clone().take_while(|line| *line != "}");
            let is_struct = line.starts_with("pub struct ")
                && line.ends_with('{')
                && fields().any(|field| field.starts_with("    pub "));
            if is_enum || is_struct {
                checked += 1;
                let name = line.split([' ', '<', '{']).nth(2).unwrap();
                let grows = attributes.contains("#[non_exhaustive]");
                assert_ne!(grows, EXHAUSTIVE.contains(&name), "{file}: {name}");
            }
            if !line.starts_with("///") {
                attributes.clear();
            }
        }
    }
    assert!(checked > 15, "only {checked} types were found");
}

/// Settings are logged; their secret is not.
#[test]
fn the_secret_is_not_shown() {
    let shown = format!("{:?}", Dedup::builder().secret([0xab; 32]));
    assert!(shown.contains("secret") && !shown.contains("171"), "{shown}");
}

/// Every error says what is wrong and what to do, in words, and transient is what passes by itself.
#[test]
fn errors_say_what_to_do() {
    let (file, dir) = (PathBuf::from("run-1"), PathBuf::from("seen"));
    let io = |kind: std::io::ErrorKind| Error::Io {
        action: "writing",
        path: "run-1".into(),
        source: kind.into(),
    };
    let second = Duration::from_secs(1);
    let reason = "a network file system".into();
    let filesystem = Error::Filesystem { dir: dir.clone(), name: "NFS", reason };
    let cases = [
        (Error::Locked { pid: 7 }, true, "lock_wait"),
        (Error::Full { max_keys: 9 }, true, "max_keys"),
        (Error::Corrupt { file, detail: "checksum".into() }, false, "onceonly verify"),
        (Error::Mismatch { field: "digest", detail: "it has xxh3".into() }, false, "new directory"),
        (Error::Version { found: 2, supported: 1 }, false, "newer release"),
        (Error::NotAStore { dir: dir.clone() }, false, "empty or new directory"),
        (Error::Unfinished { dir }, false, "open it with its window"),
        (Error::Mode { call: "observe", needs_event_time: false }, false, "event_time(false)"),
        (io(std::io::ErrorKind::StorageFull), true, "run-1"),
        (io(std::io::ErrorKind::PermissionDenied), false, "run-1"),
        (Error::Poisoned { detail: "sync".into() }, false, "check the disk"),
        (Error::Closed, false, "open it again"),
        (Error::Forked, false, "after forking"),
        (filesystem, false, "allow_any_filesystem"),
        (Error::InFlight { lease_left: second }, true, "retry"),
        (Error::LeaseLost { token: 3 }, false, "another owner"),
        (
            Error::TimestampAhead { timestamp: Timestamp::from_unix_millis(0), max_lead: second },
            false,
            "max_event_lead",
        ),
    ];
    for (error, transient, remedy) in cases {
        let text = error.to_string();
        assert_eq!(error.is_transient(), transient, "{text}");
        assert!(text.contains(remedy), "no `{remedy}` in {text}");
        assert!(!text.contains("{ ") && !text.contains("Some("), "debug output in {text}");
        assert_eq!(error.source().is_some(), matches!(error, Error::Io { .. }), "{text}");
    }
}
