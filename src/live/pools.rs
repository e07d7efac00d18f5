//! An upstream that hands its requests to others: which of them is to have the next one.
//!
//! The balancers find out by asking one pool after the other. What is kept here is what that does not tell: which pool is
//! active and since when, and, for `failback`, since when each has a usable server. These are words in the zones of the
//! pools, which all workers of a configuration share. Whoever looks writes down what changed.

use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::id::UpstreamIndex;
use crate::model::log::Level;
use crate::model::pools::{self as model, Standing};
use crate::model::time::{Seconds, UnixTime};
use crate::nginx::log::Log;
use crate::nginx::shm::Word;
use crate::nginx::time;
use crate::zone::Census;

use super::upstream::Upstream;

/// Since when a pool that never was without a usable server has one.
const ALWAYS: u64 = 1;

/// In the word of the active pool: none is.
const NONE: u64 = 0xff;

/// Bits of that word which say which pool; the others say since when.
const INDEX_BITS: u32 = 8;

/// A word that all workers share, in the zone of a pool, once the master has started the configuration, unless none had
/// room; until then, and in that case, this process's own.
struct Shared {
    /// In the zone.
    shared: Cell<Option<NonNull<AtomicU64>>>,
    /// In this process.
    own: AtomicU64,
}

/// The pools of one upstream.
pub struct Pools {
    /// Name of the upstream.
    name: String,
    /// The best first.
    members: Vec<Member>,
    /// Place of the active one, and since when, in seconds since the epoch.
    active: Shared,
}

/// One of the pools.
pub struct Member {
    /// The place of the upstream that is the pool.
    index: UpstreamIndex,
    /// That upstream.
    upstream: Rc<Upstream>,
    /// Lower ones are better.
    priority: u32,
    /// How long it must have had a usable server before it takes the place of a worse one again.
    failback: Seconds,
    /// Since when it has a usable server, by nginx's clock of milliseconds; [`ALWAYS`], or 0 while it has none. The pool
    /// may be one of another upstream, too, which has its own way of looking at it.
    usable_since: Shared,
}

/// What an upstream's pools are at a moment.
struct Found {
    /// One for each pool.
    standings: Vec<Standing>,
    /// Place of the active one.
    active: Option<usize>,
}

impl Shared {
    /// Not shared yet.
    fn new(value: u64) -> Self {
        Self { shared: Cell::new(None), own: AtomicU64::new(value) }
    }

    /// The word.
    #[inline]
    fn word(&self) -> &AtomicU64 {
        // SAFETY: the word lies in a zone that lives as long as the configuration, and is never freed.
        self.shared.get().map_or(&self.own, |word| unsafe { word.as_ref() })
    }

    /// Makes all workers share the word, if one of these pools can be controlled and has room for it.
    ///
    /// # Safety
    ///
    /// Called by the master, in `init_module`, when the pools can be controlled.
    unsafe fn start<'a>(&self, members: impl IntoIterator<Item = &'a Member>, value: u64) {
        let zones = members.into_iter().filter_map(|member| member.upstream().control()?.zone.pool());
        // SAFETY: the zones are mapped, and live as long as the configuration; zeroes are an atomic word.
        let word = zones.into_iter().find_map(|pool| unsafe { Word::<AtomicU64>::alloc(pool) });
        self.shared.set(word);
        self.word().store(value, Ordering::Relaxed);
    }
}

impl Member {
    /// A pool.
    pub fn new(index: UpstreamIndex, upstream: Rc<Upstream>, priority: u32, failback: Seconds) -> Self {
        Self { index, upstream, priority, failback, usable_since: Shared::new(ALWAYS) }
    }

    /// The upstream that is the pool.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// How much longer it waits for its failback, in milliseconds; none if it does not. Of a pool without a usable server
    /// that is all of it, unless one failed and may be tried again: that takes a request.
    #[inline]
    pub fn waits(&self, now: u64) -> Option<u64> {
        if self.failback == Seconds(0) {
            return None;
        }
        match self.usable_since.word().load(Ordering::Relaxed) {
            ALWAYS => None,
            0 => self.waits_for_a_server(now),
            since => self.failback_msec().checked_sub(now.saturating_sub(since)).filter(|left| *left > 0),
        }
    }

    /// The same, while none was usable when somebody looked last.
    #[cold]
    fn waits_for_a_server(&self, now: u64) -> Option<u64> {
        let is_trial = |census: Census| census.usable == 0 && census.untried > 0;
        let census = self.look(now, time::now());
        if census.is_none_or(is_trial) { None } else { Some(self.failback_msec()) }
    }

    /// The failback in milliseconds.
    fn failback_msec(&self) -> u64 {
        self.failback.0.saturating_mul(1000)
    }

    /// How many servers the pool has to try.
    pub fn tries(&self) -> usize {
        let upstream = self.upstream();
        let zone = upstream.control().map(|control| control.zone).or_else(|| upstream.peers());
        zone.map_or(0, |zone| zone.tries())
    }

    /// Counts its servers, and notes whether one is usable. None if its lock is stuck, or it turned out to be static:
    /// then it counts as usable, since whoever asks its balancer will find out.
    fn look(&self, now: u64, at: UnixTime) -> Option<Census> {
        let control = self.upstream().control()?;
        let census = control.zone.census(at)?;
        let since = self.usable_since.word();
        if census.usable == 0 {
            since.store(0, Ordering::Relaxed);
        } else {
            // Another worker may have seen it before.
            let _ = since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(census)
    }
}

impl Pools {
    /// These pools of the upstream `name`, at most [`model::POOLS_MAX`], in the order of the configuration.
    pub fn new(name: String, mut members: Vec<Member>) -> Self {
        // Equal ones stay in their order.
        members.sort_by_key(|member| member.priority);
        Self { name, members, active: Shared::new(0) }
    }

    /// The pools, the best first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Makes the best pool the active one, in words that all workers share.
    ///
    /// # Safety
    ///
    /// Called by the master, in `init_module`, when the pools can be controlled.
    pub unsafe fn start(&self) {
        // SAFETY: see above.
        unsafe {
            self.active.start(&self.members, pack(Some(0), time::now()));
            for member in self.members.iter().filter(|member| member.failback != Seconds(0)) {
                member.usable_since.start([member], ALWAYS);
            }
        }
    }

    /// Place of the pool that is known to be active.
    #[inline]
    pub fn active(&self) -> Option<usize> {
        unpack(self.active.word().load(Ordering::Relaxed)).0
    }

    /// Finds out which pool is active, and tells the log if it is another one than before.
    pub fn observe(&self) -> model::Pools {
        let (now, at) = (time::msec(), time::now());
        let Found { standings, active } = self.look(now, at);
        let since = self.note(active, &standings, at);
        let list = self.members.iter().zip(standings).map(|(member, standing)| model::Pool {
            upstream: member.index,
            name: member.upstream().name.clone(),
            priority: member.priority,
            failback: member.failback,
            standing,
        });
        model::Pools { list: list.collect(), since }
    }

    /// Looks at all pools.
    fn look(&self, now: u64, at: UnixTime) -> Found {
        let (mut active, mut untried) = (None, None);
        let mut standings = Vec::with_capacity(self.members.len());
        for (place, member) in self.members.iter().enumerate() {
            let census = member.look(now, at);
            standings.push(match census.filter(|census| census.usable == 0) {
                // No request goes there to find out whether one that failed is well.
                Some(census) if census.untried > 0 && active.is_some() => Standing::Standby,
                Some(Census { down, unavail, untried: untried_servers, .. }) => {
                    untried = untried.or_else(|| (untried_servers > 0).then_some(place));
                    Standing::Unavail { down, unavail, untried: untried_servers }
                }
                None => match member.waits(now) {
                    Some(left) => Standing::Waiting { left: Seconds(left.div_ceil(1000)) },
                    None if active.is_some() => Standing::Standby,
                    None => {
                        active = Some(place);
                        Standing::Active
                    }
                },
            });
        }
        if active.is_none() {
            // Better than nothing; and once requests are handed to it there is nothing to wait for.
            let waiting = |standing: &Standing| matches!(standing, Standing::Waiting { .. });
            active = standings.iter().position(waiting);
            if let Some(member) = active.and_then(|place| self.members.get(place)) {
                member.usable_since.word().store(ALWAYS, Ordering::Relaxed);
            }
            // One whose servers are to be tried again takes over, too. But where none was active it takes a request that
            // succeeds, else a dead pool would be active for a moment each time that one is tried.
            if self.active().is_some() {
                active = active.or(untried);
            }
            if let Some(standing) = active.and_then(|place| standings.get_mut(place)) {
                *standing = Standing::Active;
            }
        }
        Found { standings, active }
    }

    /// Notes which pool is active. Returns since when.
    fn note(&self, active: Option<usize>, standings: &[Standing], now: UnixTime) -> UnixTime {
        let (word, fresh) = (self.active.word(), pack(active, now));
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let (before, since) = unpack(seen);
            if before == active {
                return since;
            }
            match word.compare_exchange(seen, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.tell(before, active, standings);
                    return now;
                }
                // Another worker noted something meanwhile.
                Err(other) => seen = other,
            }
        }
    }

    /// Tells the log that another pool is active.
    fn tell(&self, before: Option<usize>, active: Option<usize>, standings: &[Standing]) {
        let Some(log) = Log::of_process() else { return };
        let name = &self.name;
        let pool = |place: usize| self.members.get(place).map_or("", |member| &member.upstream().name);
        match (before, active) {
            (_, None) => {
                log.write(Level::Error, format_args!("upstream \"{name}\": no pool has a usable server"))
            }
            (Some(before), Some(active)) if before < active => {
                let why = standings.get(before).map(ToString::to_string).unwrap_or_default();
                log.warn(format_args!(
                    "upstream \"{name}\": pool \"{}\" takes over from \"{}\": {why}",
                    pool(active),
                    pool(before)
                ));
            }
            (_, Some(active)) => {
                log.notice(format_args!("upstream \"{name}\": pool \"{}\" is active again", pool(active)))
            }
        }
    }
}

/// The word for a pool that is active since a moment; one before 1970 counts as 1970.
fn pack(active: Option<usize>, since: UnixTime) -> u64 {
    let place = active.and_then(|place| u64::try_from(place).ok()).unwrap_or(NONE);
    u64::try_from(since.0).unwrap_or(0) << INDEX_BITS | place
}

/// The pool and the moment of a word.
fn unpack(word: u64) -> (Option<usize>, UnixTime) {
    let place = word & NONE;
    let place = if place == NONE { None } else { usize::try_from(place).ok() };
    (place, UnixTime(i64::try_from(word >> INDEX_BITS).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pools::POOLS_MAX;

    #[test]
    fn a_word_holds_a_place_and_a_moment() {
        for place in [None, Some(0), Some(1), Some(POOLS_MAX - 1)] {
            for since in [0, 1, 1_000, (1 << 56) - 1].map(UnixTime) {
                assert_eq!(unpack(pack(place, since)), (place, since));
            }
        }
    }
}
