//! Becoming the owner of a space, before anything of the store is believed: who was the owner since decides
//! what the directory is worth.

use std::time::{Duration, Instant};

use super::Opening;
use super::identity::new_manifest;
use super::level;
use crate::authority::{Acquire, Acquired, AuthorityError, Opened, Progress, SliceInfo, Token};
use crate::config::Owned;
use crate::engine::exclusive::{self, Initial, Provisional, Slice, Taken};
use crate::engine::shared::{check, error_of};
use crate::engine::time::EngineTime;
use crate::engine::{OWNED_TIME, exclusive::WRITE_EVERY};
use crate::error::{Error, Result};
use crate::format::manifest::{Era, Hole, Manifest, Owner};
use crate::format::names;
use crate::gather::{Failure, Link, Terms};
use crate::random;
use crate::storage::Seat;
use crate::time::Timestamp;

/// The longest sleep while another owner is waited for.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// Servers' clocks and the ends of slices at an authority may be so far apart.
const NEAR_NS: i64 = 3_000_000_000;
const BEGUN_ANEW: &str =
    "another owner had the space since: what is known of it is read from the authority";
const FOLLOWED_A_DEAD_OWNER: &str =
    "the owner before did not give the space back: what it had not written yet is not known";
const MAY_BE_OLDER: &str = "the machine was booted anew: the directory may be a restored one that lacks what was not written";
const SERVER_LOST: &str =
    "the authority does not know this owner: whoever had the space since is not known";

/// Names of a directory at the authority.
#[derive(Clone, Copy)]
struct Names {
    /// The one that is to be the owner: that of an open which did not come to its end, or a new one.
    holder: Token,
    /// The last owner whose directory this was.
    last: Option<Token>,
}

/// The space was acquired; what the owner before has written is known by its slices.
pub(super) struct Acquirement {
    taken: Taken,
    infos: Vec<SliceInfo>,
    /// The owner before was another one.
    follows: bool,
    /// The directory is the last owner's, maybe as it was a while before its end.
    doubtful: bool,
    /// What the last owner of this directory had acknowledged here after it was last told from there.
    unknown_since_ns: Option<i64>,
}

impl Opening {
    /// Makes this store the owner of its space, where it is to be that. `read` is the manifest as it was.
    pub(super) fn take_space(&mut self, read: &Manifest) -> Result<Option<Acquirement>> {
        let Some(owned) = self.config.owned.clone() else { return Ok(None) };
        let (link, server_time) = self.find_authority(&owned)?;
        let names = self.names()?;
        let told = |failure: Failure| error_of(&link, &failure, false);
        if self.is_foreign_to_spaces() && !link.slices().map_err(told)?.is_empty() {
            // Before the owner of it loses it for nothing.
            return Err(self.keys_of_another());
        }
        if let Some(last) = names.last {
            self.name_holder(read, &[names.holder, last])?;
        }
        let dead = names.last.filter(|_| !self.report.rebooted);
        let boot_ns = || self.config.clock.boot_nanos();
        let deadline = Instant::now() + self.config.lock_wait;
        let (acquired, asked_boot_ns) = loop {
            let asked_boot_ns = boot_ns();
            match self.acquire(&link, (&owned, server_time), names.holder, dead) {
                Ok(acquired) => break (acquired, asked_boot_ns),
                Err(Error::NotExclusive { lease_left, .. }) if Instant::now() < deadline => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    std::thread::sleep(lease_left.min(left).min(LONGEST_REST));
                }
                Err(error) => return Err(error),
            }
        };
        let answered_boot_ns = boot_ns();
        let provisional = self.provisional(&link, read, names, &acquired);
        let infos = link.slices().map_err(told)?;
        // A server that has restarted since may have lost the slices.
        if link.open().map_err(told)?.server.incarnation != acquired.server.incarnation {
            return Err(told(Failure::restarted()));
        }
        let seat = Seat::new(OWNED_TIME)
            .map_err(|e| Error::io("allocating memory for", self.storage.path(""), e))?;
        let taken = Taken {
            seat,
            link,
            provisional,
            holder: names.holder,
            acquired,
            asked_boot_ns,
            answered_boot_ns,
            foreign: Vec::new(),
            lost: false,
            trusted: false,
        };
        self.judge_directory(taken, infos, names.last).map(Some)
    }

    /// Says what time it is there too.
    fn find_authority(&self, owned: &Owned) -> Result<(Link, Timestamp)> {
        let terms = Terms {
            space: owned.terms.space.as_str().into(),
            check: check(&self.header),
            deadline: owned.terms.deadline,
            forget_lag: owned.terms.forget_lag,
            write_every: Some(WRITE_EVERY),
        };
        let link = Link::new(&owned.terms.authority, terms)
            .map_err(|e| Error::io("starting a thread for", self.storage.path(""), e))?;
        let Opened { check: there, server, .. } =
            link.open().map_err(|failure| error_of(&link, &failure, false))?;
        if there == check(&self.header) {
            return Ok((link, server.time));
        }
        let detail = format!(
            "the space `{}` of {} belongs to stores with another secret or digest",
            owned.terms.space,
            link.name()
        );
        Err(Error::Mismatch { field: "secret", detail })
    }

    /// What is written down of names. A copy's names are the original's, which may live.
    fn names(&self) -> Result<Names> {
        let written = self.manifest.owner.as_ref().map_or(&[][..], |owner| &owner.holders);
        let written = if self.same_place && !self.report.created { written } else { &[] };
        let last = written.last().copied().map(Token::from_bytes);
        let holder = match written {
            // A machine that was booted anew may be another one, with a restored copy of the disk.
            [holder, _, ..] if !self.report.rebooted => Token::from_bytes(*holder),
            _ => new_token()?,
        };
        Ok(Names { holder, last })
    }

    /// Writes the new name down before it is told: should the process die, the next one asks in it again,
    /// and hears who had the space before.
    fn name_holder(&mut self, read: &Manifest, names: &[Token]) -> Result<()> {
        let manifest = self.with_holders(read, names);
        self.storage.replace(names::MANIFEST, &|stamp| manifest.encode(stamp))
    }

    /// Sees to it that the space is given back should this open fail.
    fn provisional(
        &mut self,
        link: &Link,
        read: &Manifest,
        names: Names,
        acquired: &Acquired,
    ) -> Provisional {
        let mut provisional = Provisional::new(link, names.holder, acquired);
        match (names.last, acquired.last) {
            (None, _) => {}
            // The server lost everything, and this directory alone may have it: nobody else comes first.
            (Some(_), None) => provisional.keep(),
            // The directory stays what it is: the last owner's, or one of before that.
            (Some(last), Some(before)) => {
                let known = if before == last { names.holder } else { last };
                let instead = self.with_holders(read, &[known]);
                provisional.is_named_in(&self.storage, instead);
            }
        }
        provisional
    }

    /// The manifest that was read, with other names.
    fn with_holders(&mut self, read: &Manifest, names: &[Token]) -> Manifest {
        let mut manifest = read.clone();
        if let Some(owner) = &mut manifest.owner {
            owner.holders = names.iter().map(|name| *name.as_bytes()).collect();
        }
        self.manifest.sequence += 1;
        manifest.sequence = self.manifest.sequence;
        manifest
    }

    /// The lock of the directory says that its last owner is dead.
    fn acquire(
        &self,
        link: &Link,
        (owned, server_time): (&Owned, Timestamp),
        holder: Token,
        dead: Option<Token>,
    ) -> Result<Acquired> {
        // Of a space without an owner nothing is known but that it begins now.
        let initial = Progress {
            position: 0,
            complete_since: server_time,
            complete_through: server_time,
            layout: exclusive::layout(exclusive::part_bits(&self.config), self.config.window_ns),
        };
        let request = Acquire { holder, previous: dead, lease: owned.lease, initial };
        link.acquire(request).map_err(|failure| not_exclusive(link, &failure))
    }

    /// Decides what the directory is worth: that of the last owner knows what it knew, any other begins
    /// anew.
    fn judge_directory(
        &mut self,
        mut taken: Taken,
        infos: Vec<SliceInfo>,
        before: Option<Token>,
    ) -> Result<Acquirement> {
        let last = taken.acquired.last;
        let incarnation = taken.acquired.server.incarnation;
        let was_ours = last.is_some() && last == before;
        let is_known =
            self.manifest.owner.as_ref().is_some_and(|owner| owner.incarnation == incarnation);
        // Who had released the space closed the directory then: this one is older.
        let restored = taken.acquired.released && !self.report.clean_close && is_known;
        let was_ours = was_ours && !restored;
        // It may be older too, and nothing tells.
        let doubtful = was_ours && self.report.rebooted && !self.report.clean_close;
        let mut unknown_since_ns = None;
        let follows = !was_ours && last.is_some();
        if self.report.created {
            // Whatever is there is read.
        } else if was_ours {
            taken.lost = !is_known;
            taken.trusted = !taken.lost;
        } else if last.is_none() {
            taken.lost = true;
            if self.manifest.owner.is_some() {
                let since_ns = match self.report.clean_close {
                    true => self.manifest.closed_ns,
                    false => self.manifest.anchor.engine_ns,
                };
                unknown_since_ns = Some(since_ns);
            }
        } else if self.manifest.owner.is_none() {
            return Err(self.keys_of_another());
        } else {
            self.begin_anew();
        }
        if exclusive::part_bits_of(taken.acquired.progress.layout).is_none() {
            let detail =
                "the space was written by another release: open it with that one".to_owned();
            return Err(Error::Mismatch { field: "authority_space", detail });
        }
        let foreign_until_ns = match &self.manifest.owner {
            Some(owner) if was_ours => owner.foreign_until_ns,
            _ => i64::MIN,
        };
        let unsent = match &self.manifest.owner {
            Some(owner) if was_ours => owner.unsent.clone(),
            _ => Vec::new(),
        };
        self.manifest.space = self.config.space().unwrap_or_default().to_owned();
        let holders = vec![*taken.holder.as_bytes()];
        self.manifest.owner = Some(Owner { holders, incarnation, foreign_until_ns, unsent });
        if taken.lost {
            // Until what is lost is named to be written again.
            self.manifest.owner.as_mut().into_iter().for_each(|o| o.incarnation = !incarnation);
        }
        Ok(Acquirement { taken, infos, follows, doubtful, unknown_since_ns })
    }

    /// A store that has decided alone so far: what a space has is not known to it.
    fn is_foreign_to_spaces(&self) -> bool {
        !self.report.created && self.manifest.owner.is_none()
    }

    fn keys_of_another(&self) -> Error {
        let detail = format!(
            "the space `{}` has keys of another store: name another space, or an empty directory",
            self.config.space().unwrap_or_default()
        );
        Error::Mismatch { field: "authority_space", detail }
    }

    /// Lets go of what the directory holds: others have seen and forgotten keys since.
    fn begin_anew(&mut self) {
        let level = level(self.config.durability, &*self.storage);
        let anew = new_manifest(&self.config, &self.header, level);
        let old = std::mem::replace(&mut self.manifest, anew);
        let Manifest { sequence, next_file, opens, anchor, boot_id, place, stamp, .. } = old;
        let anew = &mut self.manifest;
        (anew.sequence, anew.next_file, anew.opens) = (sequence, next_file, opens);
        (anew.anchor, anew.boot_id, anew.place, anew.stamp) = (anchor, boot_id, place, stamp);
        self.report.damage.push(BEGUN_ANEW.to_owned());
        self.report.created = true;
    }

    /// Cuts time as the owner before did, and notes what of it is not known here. `lossy`: the directory
    /// lacks some of what it had.
    pub(super) fn adopt_space(
        &mut self,
        acquirement: Acquirement,
        time: &EngineTime,
        lossy: bool,
    ) -> (Taken, Initial) {
        let Acquirement { mut taken, infos, follows, doubtful, unknown_since_ns } = acquirement;
        let boot_offset_ns = time.now() - self.config.clock.boot_nanos();
        let server_ns = taken.acquired.server.time.as_unix_nanos();
        let offset = (
            taken.asked_boot_ns + boot_offset_ns - server_ns,
            taken.answered_boot_ns + boot_offset_ns - server_ns,
        );
        let here_ns = |server: Timestamp| server.as_unix_nanos().saturating_add(offset.1);
        let now_ns = time.now();
        let mut progress = taken.acquired.progress;
        // Chunks go by the window of who wrote them: what of this window they miss is not known.
        if exclusive::is_kept_shorter(progress.layout, self.config.window_ns) {
            progress.complete_since = progress.complete_since.max(taken.acquired.server.time);
        }
        // What is lost is written again, as far as it is known here.
        let is_kept = taken.acquired.last.is_some() && !taken.lost;
        let kept_since_ns =
            if is_kept { progress.complete_since.as_unix_nanos() } else { i64::MIN };
        if follows {
            let complete_since_ns = here_ns(progress.complete_since);
            let own = &mut self.manifest.complete_since_ns;
            // A store that was created now has seen nothing itself.
            *own = complete_since_ns;
            self.adopt_slices(&infos, offset.1, server_ns, now_ns);
        }
        if doubtful || (follows && !taken.acquired.released) {
            let from_ns = progress.complete_through.as_unix_nanos().saturating_add(offset.0);
            let reason = if follows { FOLLOWED_A_DEAD_OWNER } else { MAY_BE_OLDER };
            self.manifest.holes.push(Hole {
                from_ns: from_ns.min(now_ns),
                to_ns: now_ns.saturating_add(1),
                reason: reason.to_owned(),
            });
        }
        if follows || taken.acquired.last.is_none() {
            progress.complete_through = taken.acquired.server.time;
        }
        if let Some(from_ns) = unknown_since_ns {
            let hole = Hole { from_ns, to_ns: now_ns + 1, reason: SERVER_LOST.to_owned() };
            self.report.damage.push(hole.reason.clone());
            self.manifest.holes.push(hole);
        }
        let slices =
            infos.iter().map(|info| Slice { slice: info.slice, over_ns: here_ns(info.expires) });
        let slices: Vec<Slice> = slices.filter(|slice| slice.over_ns > now_ns).collect();
        let known_until_ns = slices.iter().map(|slice| slice.over_ns).max().unwrap_or(i64::MIN);
        let reads = follows || lossy || doubtful;
        if let Some(owner) = &mut self.manifest.owner {
            if reads {
                owner.foreign_until_ns = known_until_ns;
            }
            if owner.foreign_until_ns > now_ns {
                taken.foreign = slices;
            }
        }
        let own_bits = exclusive::part_bits(&self.config);
        // What is there keeps its parts; where nothing is, they fit the keys that are expected.
        let there = exclusive::part_bits_of(progress.layout).filter(|_| !infos.is_empty());
        let part_bits = there.unwrap_or(own_bits);
        (taken, Initial { part_bits, offset, progress, kept_since_ns })
    }

    /// A store without slices of its own has a place for all that may be live. It takes the slices of the
    /// owner before, if they are as long: then its keys live as long as they would have there.
    fn adopt_slices(&mut self, infos: &[SliceInfo], offset_ns: i64, server_ns: i64, now_ns: i64) {
        let start_of = |info: &SliceInfo| {
            i64::try_from(info.slice).unwrap_or(i64::MAX).saturating_mul(1_000_000)
        };
        let begun = infos.iter().filter(|info| start_of(info) <= server_ns);
        let (slice_ns, window_ns) = (self.config.slice_ns, self.config.window_ns);
        let is_as_long = |info: &&SliceInfo| {
            let keeps_ns = info.expires.as_unix_nanos().saturating_sub(start_of(info));
            keeps_ns.saturating_sub(slice_ns + window_ns).abs() < NEAR_NS.max(slice_ns / 8)
        };
        let newest = begun.max_by_key(|info| info.slice).filter(is_as_long);
        let start_ns = newest.map_or(now_ns, |info| start_of(info).saturating_add(offset_ns));
        let start_ns = start_ns.min(now_ns);
        let before_ns = i64::from(self.config.slices + 2).saturating_mul(slice_ns);
        let first = Era {
            first: 1,
            start_ns: start_ns.saturating_sub(before_ns),
            slice_ns,
            end_ns: i64::MAX,
        };
        self.manifest.eras = vec![first];
    }
}

fn not_exclusive(link: &Link, failure: &Failure) -> Error {
    match *failure.error {
        AuthorityError::NotExclusive { lease_left } => {
            Error::NotExclusive { name: link.name(), lease_left }
        }
        _ => error_of(link, failure, false),
    }
}

fn new_token() -> Result<Token> {
    let mut bytes = [0; 16];
    random::fill(&mut bytes)
        .map_err(|e| Error::io("reading random bytes from", "the operating system", e))?;
    Ok(Token::from_bytes(bytes))
}
