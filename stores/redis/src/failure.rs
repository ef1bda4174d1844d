//! What went wrong, as the engine has to know it: was it applied, and is asking again of use?

use onceonly::authority::AuthorityError;
use redis::{RedisError, ServerError, ServerErrorKind};

/// What a server said instead of doing it. Nothing was applied.
pub(crate) enum Refusal {
    /// It does not have the script.
    NoScript,
    /// The slot is at another node from now on: host and port.
    Moved(String),
    /// The key may be at another node, just for now.
    Ask(String),
    /// Some keys of the command have moved already, others have not.
    TryAgain,
    /// It is no master, or knows that it does not know enough: another one may be asked later.
    NotHere(AuthorityError),
    Other(AuthorityError),
}

impl Refusal {
    pub(crate) fn of(error: ServerError) -> Self {
        let address = || {
            let text = error.details().unwrap_or_default();
            text.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned()
        };
        match error.kind() {
            Some(ServerErrorKind::NoScript) => Refusal::NoScript,
            Some(ServerErrorKind::Moved) => Refusal::Moved(address()),
            Some(ServerErrorKind::Ask) => Refusal::Ask(address()),
            Some(ServerErrorKind::TryAgain) => Refusal::TryAgain,
            Some(
                ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown,
            ) => Refusal::NotHere(said(error.code(), error.details())),
            _ => Refusal::Other(said(error.code(), error.details())),
        }
    }
}

/// An error of the server by its text, as scripts give it. It begins with a code.
pub(crate) fn said_by_script(text: &str) -> AuthorityError {
    let text = text.trim_start_matches('-');
    match text.split_once(' ') {
        Some((code, detail)) => said(code, Some(detail)),
        None => said(text, None),
    }
}

fn said(code: &str, detail: Option<&str>) -> AuthorityError {
    let text = format!("{code} {}", detail.unwrap_or_default());
    let text = text.trim_end();
    let is_script_error = detail.is_some_and(|detail| detail.contains("script"));
    match code {
        "OOM" => AuthorityError::transient(format!(
            "{text}: raise `maxmemory`, or wait until keys expire"
        )),
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "READONLY" | "TRYAGAIN"
        | "NOREPLICAS" | "MISCONF" | "MOVED" | "ASK" => AuthorityError::transient(text),
        "NOPERM" => AuthorityError::refused(format!(
            "{text}: allow its user EVAL, EVALSHA, INFO, TIME and the commands of the scripts"
        )),
        "NOTAROW" => AuthorityError::refused(format!(
            "{text}: give the stores a prefix of their own with `key_prefix`"
        )),
        // A script that stopped half way.
        "ERR" if is_script_error => AuthorityError::undecided(text),
        _ => AuthorityError::refused(text),
    }
}

/// No connection came about, so nothing was sent.
pub(crate) fn not_connected(address: &str, error: RedisError) -> AuthorityError {
    use redis::ErrorKind::{AuthenticationFailed, InvalidClientConfig, RESP3NotSupported};
    let text = format!("no connection to {address}: {error}");
    match error.kind() {
        AuthenticationFailed => {
            AuthorityError::refused(format!("{text}; check user and password of the URL"))
        }
        InvalidClientConfig | RESP3NotSupported => AuthorityError::refused(text),
        redis::ErrorKind::Server(ServerErrorKind::BusyLoading) => AuthorityError::transient(text),
        redis::ErrorKind::Server(_) => AuthorityError::refused(text),
        _ => AuthorityError::transient(text),
    }
}

/// It was sent, and nothing came back.
pub(crate) fn no_reply(address: &str, error: RedisError) -> AuthorityError {
    if error.is_timeout() {
        AuthorityError::undecided(format!("{address} did not reply by the deadline"))
    } else {
        AuthorityError::undecided(format!("the connection to {address} broke: {error}"))
    }
}

pub(crate) fn too_late() -> AuthorityError {
    AuthorityError::transient("the deadline had passed before anything was sent")
}

/// The same once more: errors of a client cannot be cloned.
pub(crate) fn same(error: &AuthorityError) -> AuthorityError {
    let text = || std::error::Error::source(error).map_or(String::new(), ToString::to_string);
    match error {
        AuthorityError::Transient(_) => AuthorityError::transient(text()),
        AuthorityError::Undecided(_) => AuthorityError::undecided(text()),
        AuthorityError::StaleEpoch { epoch } => AuthorityError::StaleEpoch { epoch: *epoch },
        AuthorityError::NotExclusive { lease_left } => {
            AuthorityError::NotExclusive { lease_left: *lease_left }
        }
        AuthorityError::Evicting { detail } => AuthorityError::Evicting { detail: detail.clone() },
        _ => AuthorityError::refused(text()),
    }
}

/// A refusal where none of the others is to be expected.
pub(crate) fn refused(refusal: Refusal, address: &str) -> AuthorityError {
    match refusal {
        Refusal::NotHere(error) | Refusal::Other(error) => error,
        Refusal::NoScript => AuthorityError::transient(format!("{address} forgot a script")),
        Refusal::Moved(to) | Refusal::Ask(to) => AuthorityError::transient(format!(
            "{address} says that {to} has the keys, which was not found to be so in time"
        )),
        Refusal::TryAgain => AuthorityError::transient(format!(
            "the slot is being moved from {address}: it can be asked when that is done"
        )),
    }
}
