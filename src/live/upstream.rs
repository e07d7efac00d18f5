//! One upstream of the running configuration.

use std::cell::{Cell, OnceCell, RefCell};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::snapshot::{Method, StaticReason};
use crate::nginx::upstream as nginx;
use crate::ops::Guard;
use crate::store::{self, Locked, Store};
use crate::zone::apply::Abilities;
use crate::zone::capacity::Planned;
use crate::zone::{Extra, Zone};

use super::pools::Pools;

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
    /// The pools that it has in the place of servers.
    pub pools: OnceCell<Pools>,
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
    /// The module's words in the zone of the upstream.
    pub extra: NonNull<Extra>,
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
        // SAFETY: the record is never freed; the word is atomic.
        let known = unsafe { (*self.record.as_ptr()).membership.load(Ordering::Relaxed) };
        self.pulse().differs() || known < membership
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

    /// Frees the peers that left and that no request uses any more.
    pub fn reap(&self) {
        if self.zone.has_remains() {
            let locked = self.store.lock();
            self.zone.reap();
            drop(locked);
        }
    }

    /// Revision that the peers show.
    pub(super) fn applied(&self) -> u64 {
        self.extra().applied.load(Ordering::Acquire)
    }

    /// Notes the revision that the peers show now.
    pub(super) fn set_applied(&self, _lock: &Locked, revision: u64) {
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
