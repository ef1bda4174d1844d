//! A PostgreSQL server of its own, so that settings and data are the benchmark's alone. Run by root it
//! becomes the user `postgres`, because the server refuses to be root's.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::args::Result;

/// Half as much again as the embedded stores have for their caches, as nothing else is cached. What
/// survives the death of all its processes is asked for, not what survives a power loss.
const SETTINGS: [&str; 9] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=1GB",
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
];
const LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Server(Child, u16);

impl Drop for Server {
    fn drop(&mut self) {
        // A fast shutdown; at once if that cannot be asked for.
        let asked = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if asked.is_none_or(|pid| kill_process(pid, Signal::INT).is_err()) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts a server on the data below `path`, which is made if there is none.
    pub(super) fn start(path: &Path) -> Result<(Self, Client)> {
        let data = path.join("postgres");
        if !data.exists() {
            create(path, &data)?;
        }
        let start = Instant::now();
        loop {
            // Free when it is asked for; a server that does not get it says so and ends.
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut command = program("postgres")?;
            command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
            for setting in SETTINGS {
                command.args(["-c", setting]);
            }
            let mut server = Server(quiet(&mut command).spawn()?, port);
            let connect = format!("host=127.0.0.1 port={port} user=postgres");
            // Processes of a server that was killed may take a moment to notice, and it does not start
            // before.
            while server.0.try_wait()?.is_none() && start.elapsed() < LIMIT {
                if let Ok(client) = Client::connect(&connect, NoTls) {
                    return Ok((server, client));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            if start.elapsed() > LIMIT {
                return Err("the server of PostgreSQL does not start".into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn port(&self) -> u16 {
        self.1
    }
}

fn create(path: &Path, data: &Path) -> Result<()> {
    fs::create_dir(data)?;
    if getuid().is_root() {
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        let of = fs::read_to_string("/etc/passwd")?;
        let line = of.lines().find_map(|line| line.strip_prefix("postgres:"));
        let ids: Vec<u32> =
            line.unwrap_or_default().split(':').skip(1).take(2).flat_map(str::parse).collect();
        let [user, group] = ids[..] else { return Err("there is no user postgres".into()) };
        chown(data, Some(user), Some(group))?;
    }
    fs::set_permissions(data, Permissions::from_mode(0o700))?;
    let mut command = program("initdb")?;
    command.args(["-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "-D"]).arg(data);
    let status = quiet(&mut command).status()?;
    if status.success() { Ok(()) } else { Err(format!("initdb: {status}").into()) }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn program(name: &str) -> Result<Command> {
    let path = installed(name).ok_or_else(|| format!("{name} of PostgreSQL is not installed"))?;
    if !getuid().is_root() {
        return Ok(Command::new(path));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path);
    Ok(command)
}

/// In the path, or where Debian has them: the newest.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.exists())
    {
        return Some(found);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let programs = versions.map(|version| version.path().join("bin").join(name));
    programs.filter(|program| program.exists()).max()
}
