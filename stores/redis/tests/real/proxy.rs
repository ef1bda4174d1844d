//! A network that cuts and delays: replies that are lost after they were applied.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use onceonly::authority::{Authority, AuthorityError, RowAnswer, RowOp};
use onceonly_redis::RedisAuthority;

use crate::asking::{HOUR, SPACE, ask, digests, is_duplicate, observe, soon, text, token};
use crate::server::Server;

/// What happens to replies.
const PASS: u8 = 0;
/// The connection is cut after some bytes of them.
const CUT: u8 = 1;
/// They come later than anybody waits for them.
const DELAY: u8 = 2;

const LATE: Duration = Duration::from_millis(400);

struct Proxy {
    port: u16,
    mode: Arc<AtomicU8>,
    connections: Arc<AtomicU64>,
}

impl Proxy {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, connections) = (Arc::new(AtomicU8::new(PASS)), Arc::new(AtomicU64::new(0)));
        let proxy = Proxy { port, mode: Arc::clone(&mode), connections: Arc::clone(&connections) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::Relaxed);
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || forward(from, to, &AtomicU8::new(PASS)));
                let mode = Arc::clone(&mode);
                thread::spawn(move || forward(server, client, &mode));
            }
        });
        proxy
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::Relaxed);
    }

    fn authority(&self) -> RedisAuthority {
        RedisAuthority::builder(format!("redis://127.0.0.1:{}", self.port)).build().unwrap()
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    let mut bytes = [0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let mode = mode.load(Ordering::Relaxed);
        if mode == DELAY {
            thread::sleep(LATE);
        }
        let passed = if mode == CUT { read / 2 } else { read };
        if to.write_all(&bytes[..passed]).is_err() || mode == CUT {
            break;
        }
    }
    // Both ways: the other end may be gone already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// The same tokens in each attempt, as the engine does.
#[test]
fn a_reply_that_was_lost_is_given_again() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let authority = proxy.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    for mode in [CUT, DELAY] {
        let keys = digests(40);
        let tokens: Vec<_> = keys.iter().map(|_| token()).collect();
        let attempt = |deadline| {
            let mut turn = tokens.iter().enumerate();
            let op = || {
                let (at, token) = turn.next().unwrap();
                let (token, keep) = (*token, HOUR);
                match at % 2 {
                    0 => RowOp::Observe { token, keep, value: &[] },
                    _ => RowOp::Claim { token, previous: None, lease: HOUR, keep, value: b"v" },
                }
            };
            ask(&authority, &keys, op, deadline)
        };
        ask(&authority, &digests(1), observe, soon()).unwrap();
        proxy.set(mode);
        let failed = attempt(Instant::now() + LATE / 4);
        match failed {
            Err(error) => {
                assert!(matches!(error, AuthorityError::Undecided(_)), "{}", text(&error))
            }
            // Half of the replies came.
            Ok(answers) => assert!(answers.rows.iter().any(Result::is_err)),
        }
        proxy.set(PASS);
        let answers = attempt(soon()).unwrap();
        for (at, answer) in answers.rows.into_iter().enumerate() {
            match answer.unwrap() {
                RowAnswer::Marked if at % 2 == 0 => {}
                RowAnswer::Granted { .. } if at % 2 == 1 => {}
                other => panic!("{at}: {other:?}"),
            }
        }
    }
}

/// Several threads, replies that come late now and then: each answer is that of its own key.
#[test]
fn late_replies_are_taken_for_no_other() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let authority = proxy.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let marked = digests(500);
    ask(&authority, &marked, observe, soon()).unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    let failures = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut turn = 0;
                while Instant::now() < until {
                    turn += 1;
                    let deadline = Instant::now() + LATE / 4;
                    let is_marked = turn % 2 == 0;
                    let keys =
                        if is_marked { marked[turn % 490..][..10].to_vec() } else { digests(10) };
                    let Ok(answers) = ask(&authority, &keys, || RowOp::Look, deadline) else {
                        failures.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    for answer in answers.rows.into_iter().flatten() {
                        assert_eq!(is_duplicate(&answer), is_marked, "{answer:?}");
                    }
                }
            });
        }
        while Instant::now() < until {
            proxy.set(DELAY);
            thread::sleep(Duration::from_millis(30));
            proxy.set(PASS);
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert!(failures.load(Ordering::Relaxed) > 5, "nothing was late");
}

/// A call does not connect anew, nor does it leave connections behind.
#[test]
fn connections_are_used_again() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let authority = proxy.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    ask(&authority, &digests(10), observe, soon()).unwrap();
                }
            });
        }
    });
    let connections = proxy.connections.load(Ordering::Relaxed);
    assert!(connections <= 6, "{connections} connections of four threads");
}
