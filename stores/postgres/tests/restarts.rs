//! A server of the test's own, which is stopped, killed and started again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::{Answers, Authority, AuthorityError, RowAnswer};
use onceonly_postgres::PostgresAuthority;
use onceonly_sql_tests::{observe, soon};
use tempfile::TempDir;

struct Cluster {
    dir: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Cluster {
    fn new() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").map(|dir| dir.flatten());
        let mut programs = versions.into_iter().flatten().map(|version| version.path().join("bin"));
        let programs = programs.find(|path| path.join("initdb").exists());
        let programs = programs.unwrap_or_else(|| panic!("no initdb: apt-get install postgresql"));
        let dir = tempfile::Builder::new().prefix("onceonly-postgres").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Cluster { dir, programs, port };
        if is_root() {
            // The server refuses to run as root.
            let user = Command::new("id").args(["-u", "postgres"]).output().unwrap().stdout;
            let user = String::from_utf8(user).unwrap().trim().parse().unwrap();
            chown(cluster.dir.path(), Some(user), None).unwrap();
        }
        let data = cluster.data();
        let data = data.to_str().unwrap();
        cluster.run("initdb", &["-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]);
        cluster
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn run(&self, program: &str, args: &[&str]) {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let quiet = command.args(args).current_dir("/tmp").stdout(Stdio::null());
        assert!(quiet.status().unwrap().success(), "{command:?}");
    }

    fn start(&self, settings: &str) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' {settings}",
            self.port
        );
        let (data, log) = (self.data(), self.dir.path().join("log"));
        let (data, log) = (data.to_str().unwrap(), log.to_str().unwrap());
        self.run("pg_ctl", &["-D", data, "-l", log, "-w", "-o", &options, "start"]);
    }

    /// As a crash does it: the next start recovers from the log.
    fn crash(&self) {
        let data = self.data();
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-m", "immediate", "stop"]);
    }

    /// To the server and all its processes.
    fn signal(&self, signal: &str) {
        let main = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let main = main.lines().next().unwrap().to_owned();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &main]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        // Some of its processes come and go by themselves.
        for id in children.split_whitespace().chain([main.as_str()]) {
            let sent = Command::new("kill").args([&format!("-{signal}"), id]).status().unwrap();
            assert!(sent.success() || id != main);
        }
    }

    fn connect(&self) -> PostgresAuthority {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        PostgresAuthority::builder(&url).build().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            self.signal("CONT");
            self.crash();
        }
    }
}

fn is_root() -> bool {
    fs::metadata(Path::new("/proc/self")).is_ok_and(|me| me.uid() == 0)
}

fn ask(authority: &PostgresAuthority, digest: u8, token: u8) -> Answers {
    authority.rows(&[observe("orders", digest, token)], soon()).unwrap()
}

fn is_duplicate(answers: &Answers) -> bool {
    matches!(answers.rows[..], [Ok(RowAnswer::Duplicate { .. })])
}

#[test]
fn a_server_that_crashes_loses_nothing_and_is_the_same() {
    let cluster = Cluster::new();
    cluster.start("");
    let authority = cluster.connect();
    let opened = authority.open("orders", 7, soon()).unwrap();
    for number in 0..5 {
        ask(&authority, number, 1);
        cluster.crash();
        let failed = authority.rows(
            &[observe("orders", number + 100, 1)],
            Instant::now() + Duration::from_millis(300),
        );
        assert!(matches!(failed, Err(AuthorityError::Transient(_))), "{failed:?}");
        cluster.start("");
        let answers = ask(&authority, number, 2);
        assert!(is_duplicate(&answers), "{answers:?}");
        assert_eq!(answers.server.incarnation, opened.server.incarnation);
    }
    let again = authority.open("orders", 7, soon()).unwrap();
    assert_eq!(again.complete_since, opened.complete_since);
}

/// Without syncs each start may have lost something, and is said to.
#[test]
fn a_server_that_does_not_sync_is_another_after_each_start() {
    let cluster = Cluster::new();
    cluster.start("-c fsync=off");
    let authority = cluster.connect();
    let first = authority.open("orders", 7, soon()).unwrap();
    cluster.crash();
    cluster.start("-c fsync=off");
    let answers = ask(&authority, 1, 1);
    assert_ne!(answers.server.incarnation, first.server.incarnation);
    let second = authority.open("orders", 7, soon()).unwrap();
    assert!(second.complete_since > first.complete_since);
}

#[test]
fn a_server_that_is_stopped_is_an_error_in_time() {
    let cluster = Cluster::new();
    cluster.start("");
    let (authority, fresh) = (cluster.connect(), cluster.connect());
    authority.open("orders", 7, soon()).unwrap();
    ask(&authority, 1, 1);
    cluster.signal("STOP");
    let before = Instant::now();
    let deadline = || Instant::now() + Duration::from_millis(300);
    let failed = authority.rows(&[observe("orders", 2, 2)], deadline()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Undecided(_)), "{failed:?}");
    let failed = authority.rows(&[observe("orders", 2, 2)], deadline()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{failed:?}");
    let failed = fresh.open("orders", 7, deadline()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{failed:?}");
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    cluster.signal("CONT");
    thread::sleep(Duration::from_millis(100));
    let answers = ask(&authority, 2, 2);
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    assert!(is_duplicate(&ask(&authority, 2, 3)));
}

/// A standby that takes over has another timeline.
#[test]
fn a_server_that_was_restored_to_a_point_in_time_is_another() {
    let cluster = Cluster::new();
    cluster.start("");
    let authority = cluster.connect();
    let first = authority.open("orders", 7, soon()).unwrap();
    ask(&authority, 1, 1);
    cluster.crash();
    fs::write(cluster.data().join("standby.signal"), "").unwrap();
    cluster.start("");
    let refused = authority.open("orders", 7, Instant::now() + Duration::from_millis(500));
    assert!(matches!(refused, Err(AuthorityError::Transient(_))), "{refused:?}");
    let data = cluster.data();
    cluster.run("pg_ctl", &["-D", data.to_str().unwrap(), "-w", "promote"]);
    let answers = ask(&authority, 1, 2);
    assert!(is_duplicate(&answers), "{answers:?}");
    assert_ne!(answers.server.incarnation, first.server.incarnation);
    let second = authority.open("orders", 7, soon()).unwrap();
    assert!(second.complete_since > first.complete_since);
}
