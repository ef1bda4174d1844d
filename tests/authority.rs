//! The authority in memory is one, and the suite notices when an authority is not.

use std::time::{Duration, Instant};

use onceonly::authority::conformance;
use onceonly::authority::memory::{Fault, MemoryAuthority};
use onceonly::authority::{
    Acquire, Acquired, Answers, Append, Appended, Authority, AuthorityError, Bucket, Digest,
    Forgotten, Opened, Result, Row, RowAnswer, RowOp, SliceInfo, StoredChunk, Token,
};

#[test]
fn the_authority_in_memory_conforms() {
    let server = MemoryAuthority::new();
    conformance::run(|| server.clone()).unwrap();
}

/// An authority that does one thing wrong.
struct Wrong {
    right: MemoryAuthority,
    wrong: fn(Row<'_>) -> Row<'_>,
    answer: fn(RowAnswer) -> RowAnswer,
}

impl Authority for Wrong {
    fn name(&self) -> String {
        "a wrong authority".to_owned()
    }

    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened> {
        self.right.open(space, check, deadline)
    }

    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
        let rows: Vec<_> = rows.iter().map(|row| (self.wrong)(*row)).collect();
        let mut answers = self.right.rows(&rows, deadline)?;
        let changed = answers.rows.drain(..).map(|answer| answer.map(self.answer)).collect();
        answers.rows = changed;
        Ok(answers)
    }

    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten> {
        self.right.forgotten(space, after, deadline)
    }

    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired> {
        self.right.acquire(space, request, deadline)
    }

    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>> {
        self.right.append(appends, deadline)
    }

    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Result<()> {
        self.right.release(space, epoch, holder, deadline)
    }

    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>> {
        self.right.slices(space, deadline)
    }

    fn read(&self, space: &str, b: &[Bucket], deadline: Instant) -> Result<Vec<Vec<StoredChunk>>> {
        self.right.read(space, b, deadline)
    }
}

fn broken_rules(wrong: fn(Row<'_>) -> Row<'_>, answer: fn(RowAnswer) -> RowAnswer) -> Vec<String> {
    let right = MemoryAuthority::new();
    let failures = conformance::run(|| Wrong { right: right.clone(), wrong, answer })
        .expect_err("it is wrong");
    failures.all().iter().map(|failure| failure.rule.to_owned()).collect()
}

#[test]
fn the_suite_notices_tokens_that_are_not_kept() {
    // A retry that does not know its own mark: each call has another token.
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let rules = broken_rules(
        |mut row| {
            if let RowOp::Observe { token, .. } = &mut row.op {
                let call = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let mut bytes = *token.as_bytes();
                bytes[..8].copy_from_slice(&call.to_le_bytes());
                *token = Token::from_bytes(bytes);
            }
            row
        },
        |answer| answer,
    );
    assert!(rules.iter().any(|rule| rule.starts_with("a mark is seen")), "{rules:?}");
}

#[test]
fn the_suite_notices_ages_and_values_that_are_made_up() {
    let rules = broken_rules(
        |row| row,
        |answer| match answer {
            RowAnswer::Duplicate { .. } => {
                RowAnswer::Duplicate { age: Duration::ZERO, value: Vec::new() }
            }
            other => other,
        },
    );
    assert!(rules.iter().any(|rule| rule.starts_with("a mark is seen")), "{rules:?}");
    assert!(rules.iter().any(|rule| rule.starts_with("values stay")), "{rules:?}");
}

#[test]
fn the_suite_notices_leases_that_are_cut_short() {
    let rules = broken_rules(
        |mut row| {
            if let RowOp::Claim { lease, .. } | RowOp::Renew { lease, .. } = &mut row.op {
                *lease /= 2;
            }
            row
        },
        |answer| answer,
    );
    assert!(rules.iter().any(|rule| rule.starts_with("a claim whose lease")), "{rules:?}");
    assert!(rules.iter().any(|rule| rule.starts_with("a renewed lease")), "{rules:?}");
}

#[test]
fn the_suite_notices_late_commits_that_are_let_through() {
    let rules = broken_rules(
        |row| row,
        |answer| match answer {
            RowAnswer::Lost => RowAnswer::Committed,
            other => other,
        },
    );
    assert!(rules.iter().any(|rule| rule.starts_with("who took over")), "{rules:?}");
}

#[test]
fn faults_say_whether_a_call_was_applied() {
    let server = MemoryAuthority::new();
    let deadline = || Instant::now() + Duration::from_millis(50);
    let token = Token::from_bytes([1; 16]);
    let op = RowOp::Observe { token, keep: Duration::from_secs(60), value: &[] };
    let digest = Digest::from_bytes([2; 16]);
    let row = |op| [Row { space: "s", digest, op }];
    for (fault, live) in [(Fault::Refuse, 0), (Fault::LoseRequest, 0), (Fault::LoseReply, 1)] {
        server.fail_next(1, fault);
        let failed = server.rows(&row(op), deadline()).unwrap_err();
        assert_eq!(matches!(failed, AuthorityError::Undecided(_)), fault != Fault::Refuse);
        assert_eq!(server.live_rows("s"), live, "{fault:?}");
    }
    // The reply that was lost.
    let answers = server.rows(&row(op), deadline()).unwrap();
    assert_eq!(
        answers.rows.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
        [RowAnswer::Marked]
    );
    server.delay(Duration::from_secs(5));
    let before = Instant::now();
    let failed = server.rows(&row(RowOp::Look), deadline()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Undecided(_)));
    assert!(before.elapsed() < Duration::from_secs(2));
    server.delay(Duration::ZERO);
    server.restart(None);
    assert_eq!(server.live_rows("s"), 0);
}
