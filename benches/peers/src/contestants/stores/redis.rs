//! Redis: `SET digest 1 NX EX`, one round trip a batch, in a server of its own on loopback with
//! nothing else to do. It keeps an append-only file, synced once a second: without, it survives
//! nothing. Its window is the real clock's, so nothing expires within a run; that is in its favour.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Client, Connection};

use super::{Digest, Tables};
use crate::args::Result;
use crate::contestants::Mode;

const WINDOW_SECONDS: u64 = 24 * 3600;

pub(crate) struct Redis {
    connection: Mutex<Connection>,
    /// Killed after the connection is closed.
    server: Server,
    url: String,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Its data goes with it: a benchmark's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tables for Redis {
    const NAME: &'static str = "Redis, loopback";
    const SIZES: &'static [Mode] = &[Mode::Batch(1000), Mode::Batch(100), Mode::One];

    fn open(path: &Path, _live: u64) -> Result<Self> {
        // Free when it is asked for; a server that does not get it says so and ends.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--dir"]).arg(path);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().map_err(|e| format!("redis-server: {e}"))?;
        let server = Server(server);
        let url = format!("redis://127.0.0.1:{port}/");
        let client = Client::open(&*url)?;
        let deadline = Instant::now() + Duration::from_secs(120);
        let answered = |mut connection: Connection| {
            redis::cmd("PING").query::<String>(&mut connection).map(|_| connection)
        };
        loop {
            match client.get_connection().and_then(answered) {
                Ok(connection) => {
                    return Ok(Redis { connection: Mutex::new(connection), server, url });
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn observe(&self, _current: usize, digests: &[Digest], answers: &mut [bool]) -> Result<()> {
        let mut pipe = redis::pipe();
        for digest in digests {
            pipe.cmd("SET").arg(digest).arg(b"1").arg("NX").arg("EX").arg(WINDOW_SECONDS);
        }
        let replies: Vec<Option<String>> = pipe.query(&mut *self.connection.lock())?;
        for (reply, answer) in replies.into_iter().zip(answers) {
            *answer = reply.is_none();
        }
        Ok(())
    }

    fn clear(&self, _table: usize) -> Result<()> {
        Ok(())
    }

    fn told_memory_bytes(&self) -> Option<u64> {
        let info: String =
            redis::cmd("INFO").arg("memory").query(&mut *self.connection.lock()).ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory_rss:"))?;
        line.trim().parse().ok()
    }

    fn server_pid(&self) -> Option<u32> {
        Some(self.server.0.id())
    }

    fn url(&self) -> Option<String> {
        Some(self.url.clone())
    }
}
