//! How much of a consumer's processor time the engine takes.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Processor time of the engine, calls and background, beside that of the whole process.
pub struct Meter {
    begin: Duration,
    engine: Duration,
    /// What a look at the clock adds to each call, which is not the engine's.
    clock: Duration,
    calls: u64,
    messages: u64,
}

/// Looks at the clock, to know what one costs.
const LOOKS: usize = 1_001;

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

impl Meter {
    /// Counts from here on.
    #[must_use]
    pub fn start() -> Self {
        let look = || {
            let before = now(ClockId::ThreadCPUTime);
            now(ClockId::ThreadCPUTime).saturating_sub(before)
        };
        let mut looks: Vec<Duration> = (0..LOOKS).map(|_| look()).collect();
        looks.sort_unstable();
        let (begin, clock) = (now(ClockId::ProcessCPUTime), looks[LOOKS / 2]);
        Meter { begin, engine: Duration::ZERO, clock, calls: 0, messages: 0 }
    }

    /// Runs `call` and counts its processor time as the engine's.
    pub fn engine<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let before = now(ClockId::ThreadCPUTime);
        let value = call();
        let took = now(ClockId::ThreadCPUTime).saturating_sub(before);
        self.engine += took.saturating_sub(self.clock);
        self.calls += 1;
        value
    }

    pub fn messages(&mut self, count: usize) {
        self.messages += count as u64;
    }

    #[must_use]
    pub fn handled(&self) -> u64 {
        self.messages
    }

    /// A line for people.
    #[must_use]
    pub fn report(&self) -> String {
        let whole = now(ClockId::ProcessCPUTime).saturating_sub(self.begin);
        let background = background();
        let engine = self.engine + background;
        let each = |time: Duration| time.as_nanos() as f64 / self.messages.max(1) as f64;
        format!(
            "messages {} engine_calls {} cpu_ns_per_message {:.0} of_it_engine_ns {:.0} (background {:.0}) engine_percent {:.2}",
            self.messages,
            self.calls,
            each(whole),
            each(engine),
            each(background),
            100.0 * engine.as_secs_f64() / whole.as_secs_f64().max(1e-9),
        )
    }
}

/// Names of the engine's threads, as far as the kernel keeps them.
const THREADS: [&str; 5] =
    ["onceonly-space", "onceonly-seal", "onceonly-merge", "onceonly-sync", "onceonly-author"];

/// Processor time of the threads that the engine has started; nothing where the kernel does not tell.
fn background() -> Duration {
    let of_thread = |task: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(task.path().join(file)).ok();
        if !THREADS.contains(&read("comm")?.trim_end()) {
            return None;
        }
        // The first number: nanoseconds on a processor.
        read("schedstat")?.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(of_thread).sum()
}

/// Processor time of another process.
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("no process {pid}"))?;
    let of_thread = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    };
    Ok(tasks.flatten().filter_map(of_thread).sum())
}
