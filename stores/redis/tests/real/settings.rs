//! Servers that do not fit are refused, and say why.

use onceonly::authority::{Authority, AuthorityError, RowAnswer};

use crate::asking::{SPACE, digest, observe, row, soon, text};
use crate::server::Server;

#[test]
fn a_server_that_may_evict_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", policy]);
        let refused = server.authority().open(SPACE, 7, soon()).unwrap_err();
        assert!(matches!(refused, AuthorityError::Evicting { .. }));
        assert!(refused.to_string().contains(policy), "{refused}");
        assert!(refused.to_string().contains("CONFIG SET maxmemory-policy noeviction"), "{refused}");
        let allowed = server.builder().allow_eviction(true).build().unwrap();
        allowed.open(SPACE, 7, soon()).unwrap();
        assert_eq!(row(&allowed, digest(), observe()), RowAnswer::Marked);
    }
}

#[test]
fn a_server_that_begins_to_evict_is_noticed() {
    let server = Server::start(&[]);
    let authority = server.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let mut client = server.client();
    let set = |client: &mut redis::Connection, policy: &str| {
        let mut command = redis::cmd("CONFIG");
        let () = command.arg("SET").arg("maxmemory-policy").arg(policy).query(client).unwrap();
    };
    set(&mut client, "allkeys-random");
    crate::server::eventually("it is refused", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let asked = crate::asking::ask(&authority, &[digest()], observe, soon());
        matches!(asked, Err(AuthorityError::Evicting { .. }))
    });
    set(&mut client, "noeviction");
    assert_eq!(row(&authority, digest(), observe()), RowAnswer::Marked);
}

#[test]
fn a_full_server_marks_nothing_and_loses_nothing() {
    let server = Server::start(&["--maxmemory", "8mb"]);
    let authority = server.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let key = digest();
    assert_eq!(row(&authority, key, observe()), RowAnswer::Marked);
    let full = loop {
        let op = || onceonly::authority::RowOp::Observe {
            token: crate::asking::token(),
            keep: crate::asking::HOUR,
            value: &[7; 10_000],
        };
        let mut answers = crate::asking::ask(&authority, &[digest()], op, soon()).unwrap();
        if let Err(error) = answers.rows.pop().unwrap() {
            break error;
        }
    };
    assert!(matches!(full, AuthorityError::Transient(_)), "{}", text(&full));
    assert!(text(&full).contains("maxmemory"), "{}", text(&full));
    assert!(crate::asking::is_duplicate(&row(&authority, key, observe())));
    // Taking back makes room, so it works.
    let token = crate::asking::token();
    let abandoned = row(&authority, key, onceonly::authority::RowOp::Abandon { token });
    assert_eq!(abandoned, RowAnswer::Abandoned);
}

#[test]
fn a_wrong_password_is_refused_and_not_shown() {
    let server = Server::start(&[]);
    let mut command = redis::cmd("CONFIG");
    let () =
        command.arg("SET").arg("requirepass").arg("right").query(&mut server.client()).unwrap();
    let port = server.port;
    let url = |login: &str| format!("redis://{login}127.0.0.1:{port}");
    let open = |url: String| {
        let authority = onceonly_redis::RedisAuthority::builder(url).build().unwrap();
        authority.open(SPACE, 7, soon()).map(drop)
    };
    for login in ["", ":wrong@"] {
        let refused = open(url(login)).unwrap_err();
        assert!(matches!(refused, AuthorityError::Refused(_)), "{}", text(&refused));
        assert!(!text(&refused).contains("wrong@"), "{}", text(&refused));
    }
    open(url(":right@")).unwrap();
}

#[test]
fn keys_of_others_are_not_taken_for_rows() {
    let server = Server::start(&[]);
    let authority = server.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let (text_key, list_key, ours) = (digest(), digest(), digest());
    let name = |digest: onceonly::authority::Digest| {
        let hex = digest.to_string();
        format!("onceonly:{{orders:{}}}:{hex}", &hex[..2])
    };
    let mut client = server.client();
    let () = redis::cmd("SET").arg(name(text_key)).arg("1").query(&mut client).unwrap();
    let () = redis::cmd("RPUSH").arg(name(list_key)).arg("1").query(&mut client).unwrap();
    let mut keys = [text_key, list_key, ours];
    keys.sort_unstable();
    let answers = crate::asking::ask(&authority, &keys, observe, soon()).unwrap();
    for (key, answer) in keys.iter().zip(answers.rows) {
        match answer {
            Ok(answer) => assert_eq!((*key, answer), (ours, RowAnswer::Marked)),
            Err(error) => {
                assert!(matches!(error, AuthorityError::Refused(_)), "{}", text(&error));
                assert_ne!(*key, ours);
            }
        }
    }
}

/// The documented form, for other programs.
#[test]
fn rows_can_be_read_by_others() {
    let server = Server::start(&[]);
    let authority = server.authority();
    authority.open(SPACE, 7, soon()).unwrap();
    let mut client = server.client();
    let key = digest();
    let hex = key.to_string();
    let name = format!("onceonly:{{orders:{}}}:{hex}", &hex[..2]);
    assert_eq!(row(&authority, key, observe()), RowAnswer::Marked);
    let found: Vec<u8> = redis::cmd("GET").arg(&name).query(&mut client).unwrap();
    assert_eq!((&found[..2], found[18], found.len()), (&b"m "[..], b' ', 35));
    let seen: u64 = std::str::from_utf8(&found[2..18]).unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_micros() - u128::from(seen) < 10_000_000);
    let left: u64 = redis::cmd("PTTL").arg(&name).query(&mut client).unwrap();
    assert!(left > 3_590_000 && left <= 3_600_001, "{left}");
}
