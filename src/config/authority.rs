//! Settings of stores with an authority.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Builder, Settings};
use crate::authority::Authority;
use crate::error::{Error, Result};
use crate::time::nanos;

/// Who else may see the keys of a store that has an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ownership {
    /// Several processes may see the same key: the authority decides, by one conditional write, and
    /// what is known here to be a duplicate is not asked for.
    Shared,
    /// This store is the only writer of its space, which an owner record at the authority enforces: the
    /// consumer that a partition is assigned to, a service of one process. What is not known here is `New`
    /// at once, and is written to the authority in batches, so that the next owner knows it.
    ///
    /// Young: not yet proven by long campaigns.
    ///
    /// Opening is [`Error::NotExclusive`] while another owner's lease runs. Who was followed all the same,
    /// because its lease ran out unnoticed, answers [`Error::OwnershipLost`] from then on.
    Exclusive,
}

/// What is answered while the authority cannot be asked. No policy assumes `Duplicate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnOutage {
    /// [`Error::Authority`] or [`Error::Undecided`]: the message is redelivered later.
    #[default]
    Fail,
    /// What is not known here is `New`, and marked here. That gives up "no false `New`" and "one
    /// winner" as long as the outage lasts. [`crate::AuthorityStats::assumed_new`] counts such
    /// answers, and [`crate::Dedup::guaranteed_since`] moves past them.
    ///
    /// The authority is not told of such marks afterwards: other stores may answer `New` for those keys
    /// later too. What is known here to be a duplicate stays one, though others may have forgotten it in
    /// the meantime.
    AssumeNew,
}

/// An authority and what was set for it.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) space: String,
    pub(crate) on_outage: OnOutage,
    pub(crate) deadline: Duration,
    pub(crate) forget_lag: Duration,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("space", &self.space).finish_non_exhaustive()
    }
}

/// An authority whose space this store alone writes.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) terms: Shared,
    pub(crate) lease: Duration,
}

/// As it was set.
#[derive(Clone, Default)]
pub(crate) struct AuthoritySettings {
    authority: Option<(Arc<dyn Authority>, Ownership)>,
    space: Option<String>,
    on_outage: Option<OnOutage>,
    deadline: Option<Duration>,
    forget_lag: Option<Duration>,
    owner_lease: Option<Duration>,
}

impl fmt::Debug for AuthoritySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.authority.as_ref().map(|(authority, _)| authority.name());
        f.debug_struct("AuthoritySettings")
            .field("authority", &name)
            .field("space", &self.space)
            .field("on_outage", &self.on_outage)
            .field("deadline", &self.deadline)
            .field("forget_lag", &self.forget_lag)
            .field("owner_lease", &self.owner_lease)
            .finish()
    }
}

const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);
const DEFAULT_FORGET_LAG: Duration = Duration::from_secs(1);
const DEFAULT_OWNER_LEASE: Duration = Duration::from_secs(60);
const MIN_OWNER_LEASE: Duration = Duration::from_millis(10);
/// Servers count time in milliseconds.
const MIN_SLICE: Duration = Duration::from_millis(10);
const MIN_SPAN: Duration = Duration::from_millis(1);
const MAX_DEADLINE: Duration = Duration::from_secs(3600);

impl Builder {
    /// Has `authority` decide about keys that other processes may see too, or keep them for the next owner.
    ///
    /// With [`Ownership::Exclusive`] the store decides alone, and needs a space that no other one writes, and
    /// the secret of the owners before and after it. With [`Ownership::Shared`], give the stores that share keys one [`Builder::authority_space`], one [`Builder::secret`] (else
    /// [`Error::Mismatch`]), one window and as many slices: a mark lives as long as the store that made
    /// it says. Stores of one process that are given the same authority, as an [`Arc`] or by a clone of
    /// this builder, share its calls. [`Builder::max_keys`] bounds what is kept here, and what is not
    /// kept is asked for. Event time is refused: an authority follows the clock. A directory belongs to its
    /// space from then on: opened without the authority, or with another space, it is
    /// [`Error::Mismatch`].
    ///
    /// ```
    /// # #[cfg(feature = "conformance")] {
    /// use onceonly::authority::memory::MemoryAuthority;
    /// use onceonly::{Dedup, Ownership, Verdict};
    /// use std::time::Duration;
    ///
    /// let server = MemoryAuthority::new();
    /// let open = || {
    ///     Dedup::builder()
    ///         .window(Duration::from_secs(3600))
    ///         .authority(server.clone(), Ownership::Shared)
    ///         .authority_space("orders")
    ///         .secret([7; 32]) // from where the other secrets are
    ///         .in_memory()
    /// };
    /// let (here, there) = (open()?, open()?);
    /// assert_eq!(here.observe("order-1001")?, Verdict::New);
    /// assert_eq!(there.observe("order-1001")?, Verdict::Duplicate);
    /// # }
    /// # Ok::<(), onceonly::Error>(())
    /// ```
    pub fn authority(mut self, authority: impl Authority, ownership: Ownership) -> Self {
        self.settings.authority.authority = Some((Arc::new(authority), ownership));
        self
    }

    /// Required with an authority: which of its spaces this store shares with others. Any name; that of
    /// the queue, say.
    pub fn authority_space(mut self, name: impl Into<String>) -> Self {
        self.settings.authority.space = Some(name.into());
        self
    }

    /// With [`Ownership::Exclusive`]: how long nobody else may have the space after this store was last
    /// heard of; 60 s by default. So long it goes on when the authority cannot be reached, and so long the
    /// next owner waits when this one has died elsewhere. A store that is closed, or opened again in its
    /// own directory, keeps nobody waiting.
    pub fn owner_lease(mut self, lease: Duration) -> Self {
        self.settings.authority.owner_lease = Some(lease);
        self
    }

    /// What is answered while the authority cannot be asked; [`OnOutage::Fail`] by default. Needs an
    /// authority. [`crate::Scope::on_outage`] sets it for some calls.
    pub fn on_outage(mut self, policy: OnOutage) -> Self {
        self.settings.authority.on_outage = Some(policy);
        self
    }

    /// How long one round trip to the authority may take, and closing waits for what dropped guards give
    /// back; 1 s by default. Most calls need one; whoever waits long for his turn is given a quarter of
    /// it more, and a key whose last reply was lost takes several. Needs an authority.
    pub fn authority_deadline(mut self, deadline: Duration) -> Self {
        self.settings.authority.deadline = Some(deadline);
        self
    }

    /// What another process forgets is `New` here after this long at the latest; 1 s by default. Needs
    /// an authority, whose log of what was forgotten is read three times in that span. Where that fails
    /// for longer, a duplicate that is known here is not vouched for any more, and `on_outage` decides.
    pub fn forget_lag(mut self, lag: Duration) -> Self {
        self.settings.authority.forget_lag = Some(lag);
        self
    }
}

impl Settings {
    /// What was set for an authority, if there is one.
    pub(super) fn with_authority(&self, slice_ns: i64) -> Result<(Option<Shared>, Option<Owned>)> {
        let set = &self.authority;
        let Some((authority, ownership)) = &set.authority else {
            let alone = [
                ("authority_space", set.space.is_some()),
                ("on_outage", set.on_outage.is_some()),
                ("authority_deadline", set.deadline.is_some()),
                ("forget_lag", set.forget_lag.is_some()),
                ("owner_lease", set.owner_lease.is_some()),
            ];
            return match alone.iter().find(|(_, is_set)| *is_set) {
                Some((field, _)) => Err(Error::config(field, "needs an `authority`")),
                None => Ok((None, None)),
            };
        };
        let terms = self.terms(authority, slice_ns)?;
        match ownership {
            Ownership::Shared if set.owner_lease.is_some() => Err(Error::config(
                "owner_lease",
                "is of `Ownership::Exclusive`: nobody owns a shared space",
            )),
            Ownership::Shared => Ok((Some(terms), None)),
            Ownership::Exclusive if set.forget_lag.is_some() => Err(Error::config(
                "forget_lag",
                "is of `Ownership::Shared`: nobody else forgets keys here",
            )),
            Ownership::Exclusive => {
                let lease = set.owner_lease.unwrap_or(DEFAULT_OWNER_LEASE);
                if lease < MIN_OWNER_LEASE || nanos(lease) > i64::MAX / 4 {
                    let reason = format!("{lease:?} is not a useful lease");
                    return Err(Error::config("owner_lease", reason));
                }
                Ok((None, Some(Owned { terms, lease })))
            }
        }
    }

    fn terms(&self, authority: &Arc<dyn Authority>, slice_ns: i64) -> Result<Shared> {
        let set = &self.authority;
        let space = set.space.clone().unwrap_or_default();
        if space.is_empty() {
            let reason = "is required with an authority: one name for all stores that share keys";
            return Err(Error::config("authority_space", reason));
        }
        let deadline = set.deadline.unwrap_or(DEFAULT_DEADLINE);
        if !(MIN_SPAN..=MAX_DEADLINE).contains(&deadline) {
            let reason = format!("{deadline:?} is outside 1 ms to 1 h");
            return Err(Error::config("authority_deadline", reason));
        }
        let forget_lag = set.forget_lag.unwrap_or(DEFAULT_FORGET_LAG);
        if forget_lag < MIN_SPAN {
            return Err(Error::config("forget_lag", format!("{forget_lag:?} is below 1 ms")));
        }
        if self.event_time {
            let reason = "an authority follows the clock: stores of event time cannot have one";
            return Err(Error::config("event_time", reason));
        }
        if slice_ns < nanos(MIN_SLICE) {
            let reason = "a slice is shorter than 10 ms, too short for the clock of a server";
            return Err(Error::config("window", reason));
        }
        let (authority, on_outage) = (Arc::clone(authority), set.on_outage.unwrap_or_default());
        Ok(Shared { authority, space, on_outage, deadline, forget_lag })
    }
}
