//! The module's zone, and its lock.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use nginx_sys::{
    ngx_shm_zone_t, ngx_shmtx_lock, ngx_shmtx_trylock, ngx_shmtx_unlock, ngx_slab_calloc_locked,
    ngx_slab_pool_t,
};

use crate::ops::job::JobKind;

use super::lease::Lease;
use super::records::{Header, MAGIC, Text, Upstream};

/// How long a worker waits for the lock before its holder is taken for stuck: as long as for those of the peers.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long a request waits for it, before it goes where the peers of this process say: a change takes less.
pub const SOON: Duration = Duration::from_millis(100);

/// No waiting at all: for what serves requests, and can be done later.
pub const AT_ONCE: Duration = Duration::ZERO;

/// Attempts to take the lock before the processor is left to others.
const SPINS: usize = 2048;

thread_local! {
    /// The pool whose lock was last waited for in vain, and for how long. It is not waited for so long a second time,
    /// until it was to be had: a worker that serves requests cannot spend seconds on each.
    static STUCK: Cell<(*mut ngx_slab_pool_t, Duration)> = const { Cell::new((ptr::null_mut(), Duration::ZERO)) };
}

/// The process that has the lock, by its number: it is stopped, or stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub u64);

/// The module's zone as one process sees it.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// The slab pool at the start of the zone.
    pool: NonNull<ngx_slab_pool_t>,
    /// The header, which lies in the pool.
    header: NonNull<Header>,
}

impl Store {
    /// Sets up a zone that nginx has just mapped, or finds what an earlier configuration left in it. None if there is
    /// no room for the header, or if the zone holds something else.
    ///
    /// # Safety
    ///
    /// Called by the master from the `init` of the zone, or later with the same zone.
    pub unsafe fn open(zone: NonNull<ngx_shm_zone_t>) -> Option<Self> {
        // SAFETY: nginx made a slab pool at the start of the zone before it called `init`, and the master is the only
        // process that sets `data`, before the workers of the first configuration start.
        unsafe {
            let pool = NonNull::new((*zone.as_ptr()).shm.addr.cast::<ngx_slab_pool_t>())?;
            let mut header = (*pool.as_ptr()).data.cast::<Header>();
            if header.is_null() {
                // Changes that find no room are answered in words; nginx need not log them as critical.
                ngx_slab_pool_t::set_log_nomem_raw(pool.as_ptr(), 0);
                ngx_shmtx_lock(&raw mut (*pool.as_ptr()).mutex);
                header = ngx_slab_calloc_locked(pool.as_ptr(), size_of::<Header>()).cast();
                ngx_shmtx_unlock(&raw mut (*pool.as_ptr()).mutex);
                if !header.is_null() {
                    (*header).magic = MAGIC;
                    (*pool.as_ptr()).data = header.cast();
                }
            }
            let header = NonNull::new(header)?;
            ((*header.as_ptr()).magic == MAGIC).then_some(Self { pool, header })
        }
    }

    /// The lease of a job, which is not under the lock.
    pub fn lease(&self, kind: JobKind) -> Option<&Lease> {
        // SAFETY: the header is mapped as long as the configuration that this store belongs to. The words of leases are
        // atomic: they may be shared while other processes write them.
        unsafe { &(*self.header.as_ptr()).leases }.get(kind as usize)
    }

    /// Takes the lock. What a worker that died with it left behind is still there.
    ///
    /// # Errors
    ///
    /// The lock is held for longer than `limit`, or was when it was last waited for.
    pub(super) fn take(&self, limit: Duration) -> Result<Locked, Holder> {
        let pool = self.pool.as_ptr();
        // SAFETY: the pool is mapped for as long as the configuration that this store belongs to. nginx's mutex is a
        // word, zero or the number of the process that holds it, which every process reaches atomically.
        let word = unsafe { AtomicUsize::from_ptr((&raw mut (*pool).lock.lock).cast()) };
        let spins = if limit.is_zero() { 1 } else { SPINS };
        let mut waiting = None;
        let mut holder = Holder(0);
        loop {
            for _ in 0..spins {
                // SAFETY: see above. This thread does not hold the mutex: `Locked` is not kept across calls that take
                // it.
                if unsafe { ngx_shmtx_trylock(&raw mut (*pool).mutex) } != 0 {
                    if STUCK.get().0 == pool {
                        STUCK.set((ptr::null_mut(), Duration::ZERO));
                    }
                    return Ok(Locked { pool: self.pool, header: self.header, not_send: PhantomData });
                }
                let present = word.load(Ordering::Relaxed) as u64;
                if present != 0 {
                    holder = Holder(present);
                }
                std::hint::spin_loop();
            }
            if limit.is_zero() {
                return Err(holder);
            }
            let (stuck, waited) = STUCK.get();
            if stuck == pool && limit <= waited {
                return Err(holder);
            }
            if waiting.get_or_insert_with(Instant::now).elapsed() > limit {
                STUCK.set((pool, limit));
                return Err(holder);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The store while its lock is held.
#[must_use]
pub struct Locked {
    /// The slab pool.
    pub(super) pool: NonNull<ngx_slab_pool_t>,
    /// The header.
    header: NonNull<Header>,
    /// The mutex belongs to the process that took it.
    not_send: PhantomData<*mut ()>,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: `Store::take` took the mutex in this process, and nothing else gives it back.
        unsafe { ngx_shmtx_unlock(&raw mut (*self.pool.as_ptr()).mutex) };
    }
}

impl Locked {
    /// The header.
    pub(super) fn header(&mut self) -> &mut Header {
        // SAFETY: the lock is held, so that no other process reads or writes the header; the reference cannot outlive
        // the borrow of the lock.
        unsafe { self.header.as_mut() }
    }

    /// The configuration that the store was last adopted by.
    pub fn generation(&mut self) -> u64 {
        self.header().generation
    }

    /// Notes that an upstream is about to be written. Returns what is to be noted when that is done.
    pub(super) fn begin_writing(&mut self, upstream: *mut Upstream) -> *mut Upstream {
        let before = std::mem::replace(&mut self.header().writing, upstream);
        fence(Ordering::SeqCst);
        before
    }

    /// Notes that an upstream is written.
    pub(super) fn end_writing(&mut self, before: *mut Upstream) {
        fence(Ordering::SeqCst);
        self.header().writing = before;
    }

    /// The record of an upstream by name.
    pub(super) fn find(&mut self, name: &[u8]) -> Option<NonNull<Upstream>> {
        let mut upstream = self.header().upstreams;
        while let Some(found) = NonNull::new(upstream) {
            // SAFETY: the lock is held, and records of upstreams are never freed.
            unsafe {
                if self.text(&(*upstream).name) == name {
                    return Some(found);
                }
                upstream = (*upstream).next;
            }
        }
        None
    }

    /// The bytes of a string in the zone, for as long as the lock is held.
    pub(super) fn text<'a>(&'a self, text: &Text) -> &'a [u8] {
        if text.data.is_null() {
            return &[];
        }
        // SAFETY: the string was copied into the zone whole, and is not freed without the lock, which is held.
        unsafe { std::slice::from_raw_parts(text.data, text.len) }
    }
}
