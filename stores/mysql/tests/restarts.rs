//! A server of the test's own, which is stopped, killed and started again.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::{Answers, Authority, AuthorityError, RowAnswer};
use onceonly_mysql::MysqlAuthority;
use onceonly_sql_tests::{observe, soon};
use tempfile::TempDir;

struct Instance {
    dir: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Instance {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("onceonly-mysql").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let instance = Instance { dir, port, server: None };
        // On a machine that is busy it may fail by itself.
        let mut said = String::new();
        for _ in 0..3 {
            let done = ["mariadb-install-db", "mysql_install_db"].into_iter().find_map(|program| {
                let mut command = Command::new(program);
                command.arg("--no-defaults").arg(instance.data());
                let method = "--auth-root-authentication-method=normal";
                command.args([method, "--skip-test-db", "--user=root"]).output().ok()
            });
            let done =
                done.unwrap_or_else(|| panic!("no mariadbd: apt-get install mariadb-server"));
            if done.status.success() {
                return instance;
            }
            said = String::from_utf8_lossy(&done.stderr).into_owned();
            let _ = std::fs::remove_dir_all(instance.dir.path().join("data"));
        }
        panic!("the server cannot be set up: {said}");
    }

    fn data(&self) -> String {
        format!("--datadir={}", self.dir.path().join("data").display())
    }

    fn start(&mut self, settings: &[&str]) {
        let socket = format!("--socket={}", self.dir.path().join("socket").display());
        let mut command = Command::new("mariadbd");
        command.arg("--no-defaults").arg(self.data()).arg(socket);
        command.arg(format!("--port={}", self.port)).args(["--bind-address=127.0.0.1"]);
        command.args(["--user=root", "--innodb-buffer-pool-size=32M"]).args(settings);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(command.spawn().unwrap());
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not start");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.server.as_ref().map_or(0, Child::id);
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(id.to_string()).status();
        assert!(sent.unwrap().success());
    }

    fn connect(&self) -> MysqlAuthority {
        let url = format!("mysql://root@127.0.0.1:{}/mysql", self.port);
        MysqlAuthority::builder(&url).build().unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.crash();
    }
}

fn ask(authority: &MysqlAuthority, digest: u8, token: u8) -> Answers {
    authority.rows(&[observe("orders", digest, token)], soon()).unwrap()
}

fn is_duplicate(answers: &Answers) -> bool {
    matches!(answers.rows[..], [Ok(RowAnswer::Duplicate { .. })])
}

#[test]
fn a_server_that_crashes_loses_nothing_and_is_the_same() {
    let mut instance = Instance::new();
    instance.start(&[]);
    let authority = instance.connect();
    let opened = authority.open("orders", 7, soon()).unwrap();
    for number in 0..4 {
        ask(&authority, number, 1);
        instance.crash();
        // It is seen that the connection is gone, or not until something was sent.
        thread::sleep(Duration::from_millis(150));
        let failed = authority.rows(
            &[observe("orders", number + 100, 1)],
            Instant::now() + Duration::from_millis(300),
        );
        assert!(matches!(failed, Err(AuthorityError::Transient(_))), "{failed:?}");
        instance.start(&[]);
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
    let mut instance = Instance::new();
    let settings = ["--innodb-flush-log-at-trx-commit=2"];
    instance.start(&settings);
    let authority = instance.connect();
    let first = authority.open("orders", 7, soon()).unwrap();
    let same = instance.connect().open("orders", 7, soon()).unwrap();
    assert_eq!(same.server.incarnation, first.server.incarnation);
    assert_eq!(same.complete_since, first.complete_since);
    instance.crash();
    instance.start(&settings);
    thread::sleep(Duration::from_millis(150));
    let answers = ask(&authority, 1, 1);
    assert_ne!(answers.server.incarnation, first.server.incarnation);
    let second = authority.open("orders", 7, soon()).unwrap();
    assert!(second.complete_since > first.complete_since);
}

#[test]
fn a_server_that_is_stopped_is_an_error_in_time() {
    let mut instance = Instance::new();
    instance.start(&[]);
    let (authority, fresh) = (instance.connect(), instance.connect());
    authority.open("orders", 7, soon()).unwrap();
    ask(&authority, 1, 1);
    instance.signal("STOP");
    let before = Instant::now();
    let deadline = || Instant::now() + Duration::from_millis(300);
    let failed = authority.rows(&[observe("orders", 2, 2)], deadline()).unwrap_err();
    let fits = matches!(failed, AuthorityError::Undecided(_) | AuthorityError::Transient(_));
    assert!(fits, "{failed:?}");
    let failed = authority.rows(&[observe("orders", 2, 2)], deadline()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{failed:?}");
    let failed = fresh.open("orders", 7, deadline()).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{failed:?}");
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    instance.signal("CONT");
    let answers = ask(&authority, 2, 2);
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]), "{answers:?}");
    assert!(is_duplicate(&ask(&authority, 2, 3)));
}
