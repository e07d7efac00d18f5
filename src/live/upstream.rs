//! One upstream of the running configuration.

use std::cell::{Cell, OnceCell, RefCell};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::snapshot::{Method, StaticReason};
use crate::nginx::upstream as nginx;
use crate::ops::{Guard, OpError};
use crate::store::{self, Holder, Locked, PATIENCE, Store};
use crate::zone::capacity::Planned;
use crate::zone::setting::Abilities;
use crate::zone::{Extra, Zone};

/// An upstream, from the reading of the configuration to the end of its last process.
pub struct Upstream {
    /// nginx's side.
    pub conf: nginx::Upstream,
    /// Its name.
    pub name: String,
    /// Name of its zone.
    pub zone: Option<String>,
    /// How it chooses; none if its balancer is none of nginx's own, so that its peers cannot be read.
    pub method: Option<Method>,
    /// How many usable servers a change must leave.
    pub guard: Option<Guard>,
    /// Whether it is a pool itself.
    pub is_pool: Cell<bool>,
    /// How many slots its lists are to have.
    pub slots: Cell<Planned>,
    /// Why it cannot be changed, if it cannot.
    pub fixed: RefCell<Option<StaticReason>>,
    /// What it is controlled through, once the master has started it.
    pub control: OnceCell<Control>,
}

/// What a changeable upstream is controlled through.
pub struct Control {
    /// The module's zone.
    pub store: Store,
    /// The configuration that this process runs, as the store counts them.
    pub generation: u64,
    /// Its record there.
    pub record: NonNull<store::Upstream>,
    /// Its peers.
    pub zone: Zone,
    /// What its balancer understands.
    pub abilities: Abilities,
    /// Whether it has a list of backups.
    pub has_backups: bool,
    /// The module's words in the zone of the upstream.
    pub extra: NonNull<Extra>,
    /// Whether another configuration has the store now, as it was last seen. It never gets it back.
    pub is_old: Cell<bool>,
    /// nginx's count of changes to the lists when a request last followed them in this process.
    pub followed: Cell<u64>,
}

/// A lock that is not to be had, since its holder is dead, stopped or stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// That of the peers.
    Peers,
    /// That of the store.
    Store(Holder),
}

impl From<Holder> for Stuck {
    fn from(holder: Holder) -> Self {
        Self::Store(holder)
    }
}

impl From<Stuck> for OpError {
    fn from(stuck: Stuck) -> Self {
        match stuck {
            Stuck::Peers => Self::Stuck,
            Stuck::Store(Holder(process)) => Self::StoreStuck(process),
        }
    }
}

impl From<Stuck> for StaticReason {
    fn from(stuck: Stuck) -> Self {
        match stuck {
            Stuck::Peers => Self::Stuck,
            Stuck::Store(Holder(process)) => Self::StoreStuck(process),
        }
    }
}

/// Two words that differ when a process has to catch up.
#[derive(Clone, Copy)]
pub struct Pulse {
    /// Revision in the store.
    wanted: NonNull<AtomicU64>,
    /// The module's words in the zone.
    extra: NonNull<Extra>,
}

impl Pulse {
    /// Whether the store is at another revision than the zone.
    #[inline]
    pub fn differs(&self) -> bool {
        // SAFETY: both words lie in shared zones that this process has mapped, in records that are not freed before
        // the zones themselves.
        unsafe {
            let applied = &self.extra.as_ref().applied;
            self.wanted.as_ref().load(Ordering::Relaxed) != applied.load(Ordering::Relaxed)
        }
    }
}

impl Control {
    /// Whether the peers do not show the store, or the store not the peers: with nginx's count of changes to the lists,
    /// read on the way of a request.
    #[inline]
    pub fn is_behind(&self, membership: u64) -> bool {
        self.pulse().differs() || self.has_new_peers(membership)
    }

    /// Whether nginx made peers that nobody was told anything of, by its count of changes to the lists.
    #[inline]
    pub(super) fn has_new_peers(&self, membership: u64) -> bool {
        let known = if self.is_old.get() {
            self.extra().told.load(Ordering::Relaxed)
        } else {
            // SAFETY: the record is never freed; the word is atomic.
            unsafe { (*self.record.as_ptr()).membership.load(Ordering::Relaxed) }
        };
        known < membership
    }

    /// Whether this process runs the configuration that has the store.
    pub(super) fn is_newest(&self, locked: &mut Locked) -> bool {
        let is_newest = locked.generation() == self.generation;
        self.is_old.set(!is_newest);
        is_newest
    }

    /// The words to compare on the way of a request.
    #[inline]
    pub fn pulse(&self) -> Pulse {
        // SAFETY: the record is never freed; only the address of the word is taken.
        let wanted = unsafe { NonNull::new_unchecked(&raw mut (*self.record.as_ptr()).revision) };
        Pulse { wanted, extra: self.extra }
    }

    /// The module's words in the zone of the upstream.
    #[inline]
    pub fn extra(&self) -> &Extra {
        // SAFETY: they lie in a zone that lives as long as the configuration; the words that change are atomic, but for
        // one that only the zone's own code reads.
        unsafe { self.extra.as_ref() }
    }

    /// Takes the lock of the store, for a control request.
    pub(super) fn lock(&self) -> Result<Locked, Stuck> {
        Ok(self.store.lock_within(PATIENCE)?)
    }

    /// Frees the peers that left and that no request uses any more. False if the store's lock is not to be had within
    /// `limit`.
    pub fn reap(&self, limit: Duration) -> bool {
        if !self.zone.has_remains() {
            return true;
        }
        let Ok(locked) = self.store.lock_within(limit) else { return false };
        self.zone.reap();
        drop(locked);
        true
    }

    /// Revision that the peers show.
    pub(super) fn applied(&self) -> u64 {
        self.extra().applied.load(Ordering::Acquire)
    }

    /// Notes the revision that the peers show now: the last one.
    pub(super) fn set_applied(&self, lock: &Locked, revision: u64) {
        self.extra().seen.set(lock.departures(self.record));
        self.extra().applied.store(revision, Ordering::Release);
    }
}

impl Upstream {
    /// Why the upstream cannot be changed; none if it can.
    pub fn fixed(&self) -> Option<StaticReason> {
        self.fixed.borrow().clone()
    }

    /// What the upstream is controlled through, if it can be changed.
    #[inline]
    pub fn control(&self) -> Option<&Control> {
        self.control.get()
    }

    /// The peers, for reading: of any upstream whose balancer is nginx's own.
    pub fn peers(&self) -> Option<Zone> {
        self.method?;
        // SAFETY: the configuration runs, one of nginx's balancers set the upstream up (there is a method), and zones
        // are initialized before any process of the configuration starts.
        unsafe { Zone::of(self.conf.as_non_null()) }
    }
}
