//! What a server says of itself.

use onceonly::authority::AuthorityError;

/// The parts of `INFO` that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Info {
    /// Another one whenever the process is another, or has become a master: it may lack what was
    /// acknowledged before.
    pub(crate) identity: u64,
    pub(crate) is_master: bool,
    pub(crate) in_cluster: bool,
    /// What it does when its memory is full.
    policy: Option<String>,
}

/// Names of scripts' commands that older ones do not have (`PXAT`).
const OLDEST: (u32, u32) = (6, 2);

impl Info {
    pub(crate) fn parse(text: &str) -> Result<Self, AuthorityError> {
        let field = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let run = field("run_id").ok_or_else(|| {
            AuthorityError::refused(
                "INFO has no run_id, so a restart could not be noticed: the server, or a proxy before \
                 it, does not fit",
            )
        })?;
        if let Some(version) = field("redis_version") {
            check_version(version)?;
        }
        // Of a replica that became a master the second is the history that it has left. A server that is
        // a master since it began has none, also when its first one changes for other reasons.
        let left = field("master_replid2").unwrap_or_default();
        Ok(Info {
            identity: hash(run.bytes().chain(left.bytes())),
            is_master: field("role").is_none_or(|role| role == "master"),
            in_cluster: field("cluster_enabled") == Some("1"),
            policy: field("maxmemory_policy").map(str::to_owned),
        })
    }

    /// Refuses a server that may throw away what it has acknowledged.
    pub(crate) fn check_eviction(&self) -> Result<(), AuthorityError> {
        let detail = match self.policy.as_deref() {
            Some("noeviction") => return Ok(()),
            Some(policy) => format!(
                "maxmemory-policy is {policy}; `CONFIG SET maxmemory-policy noeviction`, and the same in \
                 redis.conf"
            ),
            None => "it does not say its maxmemory-policy".to_owned(),
        };
        Err(AuthorityError::Evicting { detail })
    }
}

fn check_version(version: &str) -> Result<(), AuthorityError> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found >= OLDEST {
        return Ok(());
    }
    let (major, minor) = OLDEST;
    Err(AuthorityError::refused(format!(
        "the server is Redis {version}; {major}.{minor} or newer is needed"
    )))
}

/// FNV-1a, with the bits mixed at the end: the same in every release, because it is written down.
pub(crate) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n# Memory\r\n\
        maxmemory_policy:noeviction\r\n# Replication\r\nrole:master\r\nmaster_replid:1\r\n\
        master_replid2:0\r\n# Cluster\r\ncluster_enabled:0\r\n";

    #[test]
    fn what_matters_is_found() {
        let info = Info::parse(TEXT).unwrap();
        assert!(info.is_master && !info.in_cluster && info.check_eviction().is_ok());
        let identity = |from, to| Info::parse(&TEXT.replace(from, to)).unwrap().identity;
        assert_ne!(identity("run_id:abc", "run_id:abd"), info.identity);
        assert_ne!(identity("master_replid2:0", "master_replid2:1"), info.identity);
        // The first replica of a master gives it a new one: nothing was lost.
        assert_eq!(identity("master_replid:1", "master_replid:2"), info.identity);
    }

    #[test]
    fn servers_that_do_not_fit_are_refused() {
        for (from, to) in [("run_id", "x"), ("7.0.15", "6.0.9"), ("7.0.15", "")] {
            let refused = Info::parse(&TEXT.replace(from, to));
            assert!(matches!(refused, Err(AuthorityError::Refused(_))), "{to}");
        }
        for policy in ["maxmemory_policy:volatile-lru", "x:y"] {
            let info = Info::parse(&TEXT.replace("maxmemory_policy:noeviction", policy)).unwrap();
            assert!(matches!(info.check_eviction(), Err(AuthorityError::Evicting { .. })));
        }
    }
}
