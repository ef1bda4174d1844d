//! Settings of an authority.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::authority::RedisAuthority;
use crate::fleet::Fleet;
use crate::keys::Keys;

/// Settings of a [`RedisAuthority`]; made by [`RedisAuthority::builder`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    urls: Vec<String>,
    key_prefix: String,
    allow_eviction: bool,
    legacy_prefix: Option<Vec<u8>>,
}

impl Builder {
    pub(crate) fn new(url: String) -> Self {
        let key_prefix = "onceonly".to_owned();
        Builder { urls: vec![url], key_prefix, allow_eviction: false, legacy_prefix: None }
    }

    /// Another place to begin at, where the first one may be down: further nodes of the same Cluster, or
    /// the replicas of the same server. The one that says it is the master is asked.
    ///
    /// User, password and TLS of the nodes that a Cluster names are those of the first URL.
    pub fn or_at(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// What all keys begin with (default: `onceonly`). Stores that share a space use the same.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Takes a server whose `maxmemory-policy` is not `noeviction` (default: refused). Then two of
    /// one key may be told `New`, whenever the server made room by throwing the first one's mark away;
    /// nothing says when that was.
    pub fn allow_eviction(mut self, allow: bool) -> Self {
        self.allow_eviction = allow;
        self
    }

    /// Names the keys that `SET <prefix><key> … NX` has marked until now (`dedup:`, say). Until the window of
    /// a store is complete, a key that is there is a duplicate: the program that sets them may be replaced
    /// at any time. It has to be stopped first: what it marks after a store has looked is not noticed.
    ///
    /// Keys are looked for as they were given to the store, in all scopes alike. They are never written, and
    /// deleted by `forget` alone.
    pub fn legacy_prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.legacy_prefix = Some(prefix.as_ref().to_vec());
        self
    }

    /// Makes the authority. Connects to nothing: opening a store does.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn build(self) -> Result<RedisAuthority, UrlError> {
        let seeds = self.urls.iter().map(|url| parse(url)).collect::<Result<Vec<_>, _>>()?;
        let fleet = Fleet::new(seeds, self.allow_eviction);
        let name = format!("redis at {}", fleet.addresses().join(", "));
        let keys = Keys::new(&self.key_prefix);
        Ok(RedisAuthority { fleet, keys, name, legacy_prefix: self.legacy_prefix })
    }
}

fn parse(url: &str) -> Result<ConnectionInfo, UrlError> {
    let wrong = |reason: String| UrlError { reason };
    let needs_tls = url.starts_with("rediss:") || url.starts_with("valkeys:");
    if needs_tls && !cfg!(feature = "rustls") {
        return Err(wrong("TLS comes with the feature `rustls` of onceonly-redis".to_owned()));
    }
    #[cfg(feature = "rustls")]
    if needs_tls {
        choose_cryptography();
    }
    let info = url.into_connection_info().map_err(|error| wrong(error.to_string()))?;
    let redis = info.redis_settings().clone();
    let redis = redis.set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    Ok(info.set_redis_settings(redis))
}

/// Where several crates bring a provider, TLS would panic unless one of them is chosen.
#[cfg(feature = "rustls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may have been first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Without passwords.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("urls", &self.urls.len())
            .field("key_prefix", &self.key_prefix)
            .field("allow_eviction", &self.allow_eviction)
            .finish()
    }
}

/// A URL that names no Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlError {
    reason: String,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the URL: it may have a password.
        write!(
            f,
            "no URL of a Redis server ({}): write redis://[user:password@]host[:port][/database]",
            self.reason
        )
    }
}

impl std::error::Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;
    use onceonly::authority::Authority as _;

    #[test]
    fn names_have_no_passwords() {
        let builder = RedisAuthority::builder("redis://user:secret@10.0.0.7:6380/2");
        let authority = builder.clone().or_at("redis://10.0.0.8").build().unwrap();
        assert_eq!(authority.name(), "redis at 10.0.0.7:6380, 10.0.0.8:6379");
        assert!(!format!("{builder:?} {authority:?}").contains("secret"));
    }

    #[test]
    fn wrong_urls_say_what_is_right() {
        for url in ["", "http://a", "redis://secret@:x", "redis://a/secret"] {
            let error = RedisAuthority::builder(url).build().unwrap_err().to_string();
            assert!(error.contains("redis://[user:password@]host"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        #[cfg(not(feature = "rustls"))]
        {
            let error = RedisAuthority::builder("rediss://a").build().unwrap_err().to_string();
            assert!(error.contains("`rustls`"), "{error}");
        }
    }
}
