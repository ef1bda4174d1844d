//! Servers that do not fit are refused, and say why.

use onceonly::authority::{Authority, AuthorityError, RowAnswer, RowOp};

use crate::asking::{HOUR, SPACE, digest, observe, row, soon, text};
use crate::server::Server;

#[test]
fn a_server_that_may_evict_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", policy]);
        let refused = server.authority().open(SPACE, 7, soon()).unwrap_err();
        assert!(matches!(refused, AuthorityError::Evicting { .. }));
        assert!(refused.to_string().contains(policy), "{refused}");
        assert!(
            refused.to_string().contains("CONFIG SET maxmemory-policy noeviction"),
            "{refused}"
        );
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
        let op =
            || RowOp::Observe { token: crate::asking::token(), keep: HOUR, value: &[7; 10_000] };
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
    let abandoned = row(&authority, key, RowOp::Abandon { token });
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
    let left = |client: &mut redis::Connection| -> u64 {
        redis::cmd("PTTL").arg(&name).query(client).unwrap()
    };
    let mut reader = server.client();
    let mut get = || -> Vec<u8> { redis::cmd("GET").arg(&name).query(&mut reader).unwrap() };
    let now_us = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_micros()).unwrap()
    };

    assert_eq!(row(&authority, key, observe()), RowAnswer::Marked);
    let plain = get();
    assert_eq!((&plain[..19], plain.len()), (&b"m +000000003600001 "[..], 35));
    let begun_us = now_us();
    assert_eq!(row(&authority, key, RowOp::Refresh { keep: HOUR }), RowAnswer::Refreshed);
    let refreshed = get();
    assert_eq!((&refreshed[..2], refreshed[18], refreshed.len()), (&b"m "[..], b' ', 35));
    assert_eq!(refreshed[19..], plain[19..], "the token stays");
    let seen_us: u64 = std::str::from_utf8(&refreshed[2..18]).unwrap().parse().unwrap();
    assert!(seen_us >= begun_us && seen_us <= now_us());
    let left = left(&mut client);
    assert!(left > 3_590_000 && left <= 3_600_001, "{left}");
}
