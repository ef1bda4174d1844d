//! The harness: sends messages and their repetitions, kills the consumer at random instants, and
//! judges what was done.

use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use crate::broker::Broker;
use crate::effects::Journal;
use crate::judge::{self, Report, Sent};
use crate::message::Message;
use crate::meter;

/// Arguments of the command `campaign`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How often the consumer is killed.
    #[arg(long, default_value_t = 1000)]
    pub kills: u64,
    /// For the instants and the repetitions.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The longest life of a consumer.
    #[arg(long, default_value_t = 150)]
    pub life_ms: u64,
}

/// Without progress for so long, a consumer is given up.
const PATIENCE: Duration = Duration::from_secs(60);

struct Campaign<'a, B> {
    broker: B,
    consumer: ConsumerCommand<'a>,
    rng: fastrand::Rng,
    sent: Sent,
}

/// How to start the consumer.
struct ConsumerCommand<'a> {
    exe: &'a Path,
    server: String,
    queue: &'a str,
    dir: &'a Path,
}

/// Kills the consumer `options.kills` times, lets the last one finish, and judges. `exe` is the
/// example's program.
pub fn campaign<B: Broker>(exe: &Path, server: &str, options: &Options) -> Result<Report> {
    let dir = tempfile::tempdir()?;
    let queue = scratch_name();
    let broker = create::<B>(server, &queue)?;
    let server = broker.address(server);
    let consumer = ConsumerCommand { exe, server, queue: &queue, dir: dir.path() };
    let rng = fastrand::Rng::with_seed(options.seed);
    let mut campaign = Campaign { broker, consumer, rng, sent: Sent::default() };
    let report = campaign.run(options);
    campaign.broker.remove()?;
    report
}

/// Lets a consumer handle `messages` messages and print what they took; with the server's process
/// also what it took for them, from the first one published to the last one acknowledged.
pub fn measure<B: Broker>(
    exe: &Path,
    server: &str,
    messages: u64,
    server_pid: Option<u32>,
) -> Result<()> {
    let of_server = || server_pid.map(meter::of_process).transpose();
    let before = of_server()?;
    let dir = tempfile::tempdir()?;
    let queue = scratch_name();
    let mut broker = create::<B>(server, &queue)?;
    let numbers: Vec<u64> = (0..messages).collect();
    for some in numbers.chunks(1000) {
        let some: Vec<Message> = some.iter().map(|number| Message::numbered(*number)).collect();
        broker.publish(&some)?;
    }
    let server = broker.address(server);
    let consumer = ConsumerCommand { exe, server, queue: &queue, dir: dir.path() };
    let stop_after = messages.to_string();
    let status = consumer.command().args(["--stop-after", &stop_after]).status()?;
    if let (Some(before), Some(after)) = (before, of_server()?) {
        let each = after.saturating_sub(before).as_nanos() / u128::from(messages.max(1));
        println!("server cpu_ns_per_message {each}");
    }
    broker.remove()?;
    ensure!(status.success(), "the consumer ended with {status}");
    Ok(())
}

fn create<B: Broker>(server: &str, queue: &str) -> Result<B> {
    B::create(server, queue)
        .with_context(|| format!("no queue at {server}; to start a server: {}", B::START))
}

/// A name that no other campaign on the same server has.
fn scratch_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("onceonly-{}-{}", process::id(), now.as_nanos())
}

impl<B: Broker> Campaign<'_, B> {
    fn run(&mut self, options: &Options) -> Result<Report> {
        let dir = self.consumer.dir;
        let mut wasted = 0;
        for kill_number in 0..options.kills {
            self.send_more()?;
            let before = Journal::len(dir)?;
            let mut consumer = self.consumer.start()?;
            // Every third may die while it starts, the others once they are at work.
            let mut life_us = options.life_ms * 1000;
            if kill_number % 3 != 0 {
                until_at_work(&mut consumer, dir, before)?;
                life_us /= 3;
            }
            thread::sleep(Duration::from_micros(self.rng.u64(0..=life_us)));
            let ended = consumer.try_wait()?;
            ensure!(ended.is_none(), "the consumer ended by itself: {ended:?}");
            kill(&mut consumer)?;
            wasted += u64::from(Journal::len(dir)? == before);
        }
        self.send_more()?;
        self.drain()?;
        let (done, tally) = (Journal::read(dir)?, self.broker.tally(dir)?);
        Ok(judge::judge(&self.sent, &done, &tally, options.kills, wasted))
    }

    /// Fills the queue up, with what an at-least-once world adds: a producer that sends again what
    /// it has sent, at once or much later.
    fn send_more(&mut self) -> Result<()> {
        if self.broker.backlog()? >= B::SENT_AT_ONCE {
            return Ok(());
        }
        let mut messages = Vec::new();
        for _ in 0..B::SENT_AT_ONCE {
            let message = Message::numbered(self.sent.messages);
            self.sent.messages += 1;
            messages.push(message.clone());
            if self.rng.u8(0..10) == 0 {
                messages.push(message);
            }
            if self.rng.u8(0..10) == 0 {
                messages.push(Message::numbered(self.rng.u64(0..self.sent.messages)));
            }
        }
        self.sent.copies += messages.len() as u64;
        self.broker.publish(&messages)
    }

    /// Lets consumers live until nothing is left. A broker that does not count what is delivered and
    /// not acknowledged has it back when its consumer is killed.
    fn drain(&mut self) -> Result<()> {
        while !self.stays_empty()? {
            let mut consumer = self.consumer.start()?;
            let drained = self.until_empty(&mut consumer);
            kill(&mut consumer)?;
            drained?;
        }
        Ok(())
    }

    fn until_empty(&mut self, consumer: &mut Child) -> Result<()> {
        let (mut last, mut since) = (u64::MAX, Instant::now());
        while last > 0 {
            thread::sleep(Duration::from_millis(200));
            let backlog = self.broker.backlog()?;
            if backlog != last {
                (last, since) = (backlog, Instant::now());
            }
            let ended = consumer.try_wait()?;
            ensure!(ended.is_none(), "the consumer ended by itself: {ended:?}");
            if since.elapsed() > PATIENCE {
                bail!("{backlog} messages are never acknowledged");
            }
        }
        // The last batch may be in work.
        thread::sleep(Duration::from_millis(300));
        Ok(())
    }

    fn stays_empty(&mut self) -> Result<bool> {
        for _ in 0..5 {
            if self.broker.backlog()? > 0 {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(true)
    }
}

impl ConsumerCommand<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.exe);
        command.args(["consume", "--server", &self.server, "--queue", self.queue, "--dir"]);
        command.arg(self.dir).stdin(Stdio::null());
        command
    }

    fn start(&self) -> Result<Child> {
        self.command().spawn().with_context(|| format!("start {}", self.exe.display()))
    }
}

/// Waits until the journal is longer than `before`.
fn until_at_work(consumer: &mut Child, dir: &Path, before: u64) -> Result<()> {
    let since = Instant::now();
    while Journal::len(dir)? == before {
        let ended = consumer.try_wait()?;
        ensure!(ended.is_none(), "the consumer ended by itself: {ended:?}");
        if since.elapsed() > PATIENCE {
            kill(consumer)?;
            bail!("the consumer does nothing");
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// `kill -9`.
fn kill(child: &mut Child) -> Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}
