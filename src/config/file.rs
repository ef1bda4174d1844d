//! The feature `serde`: settings in a configuration file.
//!
//! The secret is left out, because it does not belong into a file that is shown and copied; so are
//! the clock and the authority with what is set for it: name them on the builder that was read. A
//! directory that belongs to a space of an authority refuses to be opened without.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Builder, Durability, Settings};
use crate::digest::DigestKind;

/// Settings by the names of their setters; those that are not named have their defaults.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    window: Option<Duration>,
    slices: u32,
    expected_keys: u64,
    false_positive_rate: f64,
    durability: Durability,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<DigestKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_keys: Option<u64>,
    refresh_on_duplicate: bool,
    trace: bool,
    shadow: bool,
    event_time: bool,
    #[serde(with = "humantime_serde")]
    max_event_lead: Duration,
    #[serde(with = "humantime_serde")]
    lease: Duration,
    #[serde(with = "humantime_serde")]
    lock_wait: Duration,
    allow_any_filesystem: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<usize>,
}

impl Default for File {
    fn default() -> Self {
        File::of(&Builder::default().settings)
    }
}

impl File {
    fn of(settings: &Settings) -> Self {
        File {
            window: settings.window,
            slices: settings.slices,
            expected_keys: settings.expected_keys,
            false_positive_rate: settings.false_positive_rate,
            durability: settings.durability,
            digest: settings.digest,
            max_keys: settings.max_keys,
            refresh_on_duplicate: settings.refresh_on_duplicate,
            trace: settings.trace,
            shadow: settings.shadow,
            event_time: settings.event_time,
            max_event_lead: settings.max_event_lead,
            lease: settings.lease,
            lock_wait: settings.lock_wait,
            allow_any_filesystem: settings.any_filesystem,
            shards: settings.shards,
        }
    }

    fn builder(self) -> Builder {
        let mut builder = Builder::default();
        let settings = &mut builder.settings;
        settings.window = self.window;
        settings.slices = self.slices;
        settings.expected_keys = self.expected_keys;
        settings.false_positive_rate = self.false_positive_rate;
        settings.durability = self.durability;
        settings.digest = self.digest;
        settings.max_keys = self.max_keys;
        settings.refresh_on_duplicate = self.refresh_on_duplicate;
        settings.trace = self.trace;
        settings.shadow = self.shadow;
        settings.event_time = self.event_time;
        settings.max_event_lead = self.max_event_lead;
        settings.lease = self.lease;
        settings.lock_wait = self.lock_wait;
        settings.any_filesystem = self.allow_any_filesystem;
        settings.shards = self.shards;
        builder
    }
}

/// By the names of the setters, spans of time as `"1h"` or `"90s"`. The secret and the clock are not
/// among them.
impl Serialize for Builder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        File::of(&self.settings).serialize(serializer)
    }
}

/// What is not named has its default; a name that is no setting is an error. Values are checked by
/// [`Builder::open`].
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use onceonly::{Builder, Verdict};
///
/// let text = r#"{
///     "window": "24h",
///     "expected_keys": 1000000,
///     "digest": "siphash13",
///     "durability": { "interval": "100ms" }
/// }"#;
/// let builder: Builder = serde_json::from_str(text).unwrap();
/// let store = builder.in_memory().unwrap();
/// assert_eq!(store.observe("order-1001").unwrap(), Verdict::New);
/// # }
/// ```
impl<'de> Deserialize<'de> for Builder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        File::deserialize(deserializer).map(File::builder)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DurabilityName {
    Process,
    Interval(#[serde(with = "humantime_serde")] Duration),
    Sync,
}

/// `"process"`, `{ "interval": "100ms" }` or `"sync"`.
impl Serialize for Durability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match *self {
            Durability::Process => DurabilityName::Process,
            Durability::Interval(interval) => DurabilityName::Interval(interval),
            Durability::Sync => DurabilityName::Sync,
        };
        name.serialize(serializer)
    }
}

/// `"process"`, `{ "interval": "100ms" }` or `"sync"`.
impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match DurabilityName::deserialize(deserializer)? {
            DurabilityName::Process => Durability::Process,
            DurabilityName::Interval(interval) => Durability::Interval(interval),
            DurabilityName::Sync => Durability::Sync,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DigestName {
    Xxh3,
    SipHash13,
}

/// `"xxh3"` or `"siphash13"`.
impl Serialize for DigestKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match self {
            DigestKind::Xxh3 => DigestName::Xxh3,
            DigestKind::SipHash13 => DigestName::SipHash13,
        };
        name.serialize(serializer)
    }
}

/// `"xxh3"` or `"siphash13"`.
impl<'de> Deserialize<'de> for DigestKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match DigestName::deserialize(deserializer)? {
            DigestName::Xxh3 => DigestKind::Xxh3,
            DigestName::SipHash13 => DigestKind::SipHash13,
        })
    }
}
