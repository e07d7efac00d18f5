//! nginx's locks of the peers, taken as nginx does, but not for ever.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use crate::model::id::Group;

use super::handle::Zone;
use super::nginx_peers::RawPeers;

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
fn take_for_reading(list: NonNull<RawPeers>) -> bool {
    take(list, &STUCK_FOR_READING, |readers| (readers != WRITE_LOCKED).then(|| readers + 1))
}

/// Takes the lock of a list as nginx's `ngx_rwlock_wlock` does, but not for ever.
fn take_for_writing(list: NonNull<RawPeers>) -> bool {
    take(list, &STUCK_FOR_WRITING, |readers| (readers == 0).then_some(WRITE_LOCKED))
}

/// Puts `next` of the present word into a lock, as soon as there is one. False if there is none for too long. Lists
/// outside a zone are one worker's own: nginx's macros do not lock them either.
fn take(
    list: NonNull<RawPeers>,
    stuck: &'static LocalKey<Stuck>,
    next: impl Fn(usize) -> Option<usize>,
) -> bool {
    // SAFETY: the list is mapped; the pool is set once, and the lock is a word that every process reaches atomically.
    let word = unsafe {
        if (*list.as_ptr()).shpool.is_null() {
            return true;
        }
        AtomicUsize::from_ptr((&raw mut (*list.as_ptr()).rwlock).cast())
    };
    let mut waiting = None;
    loop {
        for _ in 0..SPINS {
            let present = word.load(Ordering::Relaxed);
            if let Some(next) = next(present)
                && word.compare_exchange_weak(present, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                if stuck.get() == list.as_ptr() {
                    stuck.set(ptr::null_mut());
                }
                return true;
            }
            std::hint::spin_loop();
        }
        if stuck.get() == list.as_ptr() || waiting.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            stuck.set(list.as_ptr());
            return false;
        }
        std::thread::yield_now();
    }
}

/// Both lists of a zone, locked for reading or for writing, primaries first.
#[must_use]
pub struct Lists {
    /// The primaries.
    pub(super) primary: NonNull<RawPeers>,
    /// The backups.
    pub(super) backup: Option<NonNull<RawPeers>>,
    /// nginx's locks belong to the thread that took them.
    not_send: PhantomData<*mut ()>,
}

impl Drop for Lists {
    fn drop(&mut self) {
        // SAFETY: `Zone::lock` took exactly these locks in this thread, and nothing else gives them back.
        unsafe {
            if let Some(backup) = self.backup {
                nuc_peers_unlock(backup.as_ptr());
            }
            nuc_peers_unlock(self.primary.as_ptr());
        }
    }
}

impl Lists {
    /// Locks a list of backups that nobody knows yet, and gives it back with the others.
    ///
    /// # Safety
    ///
    /// There was no list of backups; this one is about to be linked.
    #[cfg(nginx_peer_refs)]
    pub(super) unsafe fn adopt(&mut self, backup: NonNull<RawPeers>) {
        // Nobody else knows the list, so that its lock is free.
        if take_for_writing(backup) {
            self.backup = Some(backup);
        }
    }

    /// The lists, with what they are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Group, NonNull<RawPeers>)> + use<> {
        [(Group::Primary, Some(self.primary)), (Group::Backup, self.backup)]
            .into_iter()
            .filter_map(|(group, list)| list.map(|list| (group, list)))
    }
}

impl Zone {
    /// Locks both lists, in nginx's order: primaries first. None if that takes too long: a process that died with one of
    /// the locks has left it locked, and nobody may wait for it with a lock of ours in hand.
    fn lock(&self, take: fn(NonNull<RawPeers>) -> bool) -> Option<Lists> {
        if !take(self.primary) {
            return None;
        }
        // From here on the guard gives back what was taken. A backup list is never freed.
        let mut lists = Lists { primary: self.primary, backup: None, not_send: PhantomData };
        // SAFETY: the list is mapped, and its lock is held.
        if let Some(backup) = NonNull::new(unsafe { (*self.primary.as_ptr()).next }) {
            if !take(backup) {
                return None;
            }
            lists.backup = Some(backup);
        }
        Some(lists)
    }

    /// Locks both lists for reading.
    pub fn read(&self) -> Option<Lists> {
        self.lock(take_for_reading)
    }

    /// Locks both lists for writing.
    pub fn write(&self) -> Option<Lists> {
        self.lock(take_for_writing)
    }
}
