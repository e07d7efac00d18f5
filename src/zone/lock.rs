//! nginx's locks of the peers, taken as nginx does, but not for ever.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use crate::model::id::Group;

use super::handle::Zone;
use super::nginx_peers::RawPeers;
use super::peers::{List, ListMut, PeerMut, Peers};

/// What nginx's lock holds while somebody writes: `ngx_rwlock`'s NGX_RWLOCK_WLOCK.
const WRITE_LOCKED: usize = usize::MAX;

/// How long a lock is waited for before its holder is taken for dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// Attempts to take a lock before the processor is left to others.
const SPINS: usize = 2048;

/// The list whose lock was last waited for in vain. It is not waited for a second time, until it was to be had: a worker
/// that serves requests cannot spend seconds on each.
type Stuck = Cell<*mut RawPeers>;

thread_local! {
    /// For reading.
    static STUCK_FOR_READING: Stuck = const { Cell::new(ptr::null_mut()) };
    /// For writing: who died while it read keeps out writers only.
    static STUCK_FOR_WRITING: Stuck = const { Cell::new(ptr::null_mut()) };
}

unsafe extern "C" {
    /// `ngx_http_upstream_rr_peers_unlock`.
    fn nuc_peers_unlock(peers: *mut RawPeers);
}

/// Takes the lock of a list as nginx's `ngx_rwlock_rlock` does, but not for ever.
fn take_for_reading(list: List<'_>) -> bool {
    take(list, &STUCK_FOR_READING, |readers| (readers != WRITE_LOCKED).then(|| readers + 1))
}

/// Takes the lock of a list as nginx's `ngx_rwlock_wlock` does, but not for ever.
fn take_for_writing(list: List<'_>) -> bool {
    take(list, &STUCK_FOR_WRITING, |readers| (readers == 0).then_some(WRITE_LOCKED))
}

/// Puts `next` of the present word into a lock, as soon as there is one. False if there is none for too long. Lists
/// outside a zone are one worker's own: nginx's macros do not lock them either.
fn take(list: List<'_>, stuck: &'static LocalKey<Stuck>, next: impl Fn(usize) -> Option<usize>) -> bool {
    if list.pool().is_none() {
        return true;
    }
    let list = list.raw().as_ptr();
    // SAFETY: the list is mapped, and the lock is a word that every process reaches atomically.
    let word = unsafe { AtomicUsize::from_ptr((&raw mut (*list).rwlock).cast()) };
    let mut waiting = None;
    loop {
        for _ in 0..SPINS {
            let present = word.load(Ordering::Relaxed);
            if let Some(next) = next(present)
                && word.compare_exchange_weak(present, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                if stuck.get() == list {
                    stuck.set(ptr::null_mut());
                }
                return true;
            }
            std::hint::spin_loop();
        }
        if stuck.get() == list || waiting.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            stuck.set(list);
            return false;
        }
        std::thread::yield_now();
    }
}

/// Both lists of a zone, locked for reading or for writing, primaries first.
#[must_use]
pub struct Lists {
    /// Whose they are.
    zone: Zone,
    /// The backups, if they are locked.
    backup: Option<NonNull<RawPeers>>,
    /// nginx's locks belong to the thread that took them.
    not_send: PhantomData<*mut ()>,
}

/// Both lists of a zone, locked for writing.
#[must_use]
pub struct Writing(Lists);

impl Drop for Lists {
    fn drop(&mut self) {
        for (_, list) in self.locked([Group::Backup, Group::Primary]) {
            // SAFETY: `Zone::lock` took exactly these locks in this thread, and nothing else gives them back.
            unsafe { nuc_peers_unlock(list.raw().as_ptr()) };
        }
    }
}

impl Lists {
    /// The zone that the lists belong to.
    pub(super) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The primaries.
    pub(super) fn primary(&self) -> List<'_> {
        self.zone.primary()
    }

    /// The backups, if there is a list of them.
    pub(super) fn backup(&self) -> Option<List<'_>> {
        // SAFETY: lists are mapped as long as their zone.
        self.backup.map(|list| unsafe { List::new(list) })
    }

    /// The lists, with what they are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Group, List<'_>)> {
        self.locked([Group::Primary, Group::Backup])
    }

    /// Those of the lists that there are.
    fn locked(&self, groups: [Group; 2]) -> impl Iterator<Item = (Group, List<'_>)> {
        groups.into_iter().filter_map(|group| {
            let list = if group.is_backup() { self.backup() } else { Some(self.primary()) };
            Some((group, list?))
        })
    }

    /// All peers of a list, in its order.
    pub(super) fn peers<'a>(&'a self, list: List<'a>) -> Peers<'a> {
        debug_assert!(self.iter().any(|(_, own)| own.raw() == list.raw()));
        // SAFETY: lists are handed out by this value, which holds their locks for 'a.
        unsafe { list.peers() }
    }
}

impl Deref for Writing {
    type Target = Lists;

    fn deref(&self) -> &Lists {
        &self.0
    }
}

impl Writing {
    /// The primaries.
    pub(super) fn primary_mut(&self) -> ListMut<'_> {
        // SAFETY: lists are mapped as long as their zone; this value holds the lock.
        unsafe { ListMut::new(self.0.primary().raw()) }
    }

    /// The lists, with what they are.
    pub(super) fn iter_mut(&self) -> impl Iterator<Item = (Group, ListMut<'_>)> {
        // SAFETY: likewise.
        self.0.iter().map(|(group, list)| (group, unsafe { ListMut::new(list.raw()) }))
    }

    /// All peers of a list, in its order.
    pub(super) fn peers_mut<'a>(&'a self, list: ListMut<'a>) -> impl Iterator<Item = PeerMut<'a>> {
        // SAFETY: this value holds the write locks of both lists for 'a.
        self.0.peers(*list).map(|peer| unsafe { PeerMut::new(peer.raw()) })
    }

    /// Locks a list of backups that nobody knows yet, and gives it back with the others.
    ///
    /// # Safety
    ///
    /// There was no list of backups; this one is about to be linked.
    #[cfg(nginx_peer_refs)]
    pub(super) unsafe fn adopt(&mut self, backup: NonNull<RawPeers>) {
        // SAFETY: see above. Nobody else knows the list, so that its lock is free.
        if take_for_writing(unsafe { List::new(backup) }) {
            self.0.backup = Some(backup);
        }
    }
}

impl Zone {
    /// Locks both lists, in nginx's order: primaries first. None if that takes too long: a process that died with one of
    /// the locks has left it locked, and nobody may wait for it with a lock of ours in hand.
    fn lock(&self, take: fn(List<'_>) -> bool) -> Option<Lists> {
        if !take(self.primary()) {
            return None;
        }
        // From here on the guard gives back what was taken.
        let mut lists = Lists { zone: *self, backup: None, not_send: PhantomData };
        if let Some(backup) = self.primary().backups() {
            if !take(backup) {
                return None;
            }
            lists.backup = Some(backup.raw());
        }
        Some(lists)
    }

    /// Locks both lists for reading.
    pub fn read(&self) -> Option<Lists> {
        self.lock(take_for_reading)
    }

    /// Locks both lists for writing.
    pub fn write(&self) -> Option<Writing> {
        self.lock(take_for_writing).map(Writing)
    }
}
