//! Servers of a test's own, on free ports: stopped, frozen, restarted and filled as it likes.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onceonly_redis::{Builder, RedisAuthority};
use tempfile::TempDir;

/// Longer than anything takes that is to end well.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) port: u16,
    dir: TempDir,
    args: Vec<String>,
    child: Child,
}

impl Server {
    /// Starts one that keeps nothing on disk.
    pub(crate) fn start(args: &[&str]) -> Self {
        Server::start_at(free_port(), args)
    }

    pub(crate) fn start_at(port: u16, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let child = spawn(port, &dir, &args);
        let server = Server { port, dir, args, child };
        server.wait();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn builder(&self) -> Builder {
        RedisAuthority::builder(self.url())
    }

    pub(crate) fn authority(&self) -> RedisAuthority {
        self.builder().build().unwrap()
    }

    /// Asks it directly, as another program would.
    pub(crate) fn client(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with what it has on disk.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.port, &self.dir, &self.args);
        self.wait();
    }

    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    fn wait(&self) {
        eventually("the server answers", || {
            let client = redis::Client::open(self.url()).unwrap();
            let pong = client
                .get_connection_with_timeout(Duration::from_secs(1))
                .and_then(|mut client| redis::cmd("PING").query::<String>(&mut client));
            pong.is_ok()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, dir: &TempDir, args: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--dir", dir.path().to_str().unwrap()])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is not installed: apt-get install redis-server")
}

/// A port that nothing listens on, nor on the one that a node of a Cluster takes besides.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 50_000 && TcpStream::connect(("127.0.0.1", port + 10_000)).is_err() {
            return port;
        }
    }
}

/// Tries until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Three masters, with or without a replica each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start(replicas: usize) -> Self {
        let count = 3 * (1 + replicas);
        let args = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--repl-diskless-sync-delay",
            "0",
            "--cluster-config-file",
            "nodes.conf",
        ];
        let nodes: Vec<Server> = (0..count).map(|_| Server::start(&args)).collect();
        let addresses: Vec<String> =
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let done = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .output()
            .expect("redis-cli is not installed: apt-get install redis-tools");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        let cluster = Cluster { nodes };
        eventually("all nodes know the Cluster", || {
            cluster.nodes.iter().all(|node| {
                let info: String =
                    redis::cmd("CLUSTER").arg("INFO").query(&mut node.client()).unwrap();
                info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384")
            })
        });
        cluster
    }

    pub(crate) fn builder(&self) -> Builder {
        let mut nodes = self.nodes.iter();
        let first = nodes.next().unwrap().builder();
        nodes.fold(first, |builder, node| builder.or_at(node.url()))
    }

    pub(crate) fn authority(&self) -> RedisAuthority {
        self.builder().build().unwrap()
    }

    /// The nodes that are masters now, of those that live.
    pub(crate) fn masters(&mut self) -> Vec<usize> {
        let is_master = |node: &mut Server| {
            node.child.try_wait().unwrap().is_none()
                && redis::cmd("ROLE")
                    .query::<Vec<redis::Value>>(&mut node.client())
                    .is_ok_and(|role| role[0] == redis::Value::BulkString(b"master".to_vec()))
        };
        let nodes = self.nodes.iter_mut().enumerate();
        nodes.filter_map(|(at, node)| is_master(node).then_some(at)).collect()
    }
}
