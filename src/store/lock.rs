//! The module's zone, and its lock.

use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use nginx_sys::{
    ngx_pagesize_shift, ngx_shm_zone_t, ngx_shmtx_lock, ngx_shmtx_trylock, ngx_shmtx_unlock,
    ngx_slab_alloc_locked, ngx_slab_calloc_locked, ngx_slab_free_locked, ngx_slab_pool_t,
};

use super::death;
use super::lease::Lease;
use super::records::{Header, MAGIC, Text, UNKNOWN, Upstream, Wish};

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

/// No room left in the module's zone for this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Bytes that were needed.
    pub needed: usize,
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

    /// The leases of jobs, which are not under the lock.
    pub(super) fn leases(&self) -> &[Lease] {
        // SAFETY: the header is mapped as long as the configuration that this store belongs to. The words of leases are
        // atomic: they may be shared while other processes write them.
        unsafe { &(*self.header.as_ptr()).leases }
    }

    /// Takes the lock, and puts right what a worker that died with it left behind.
    ///
    /// # Errors
    ///
    /// The lock is held for longer than `limit`, or was when it was last waited for.
    pub fn lock_within(&self, limit: Duration) -> Result<Locked, Holder> {
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
                    let mut locked = Locked { pool: self.pool, header: self.header, not_send: PhantomData };
                    locked.recover();
                    return Ok(locked);
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
    pool: NonNull<ngx_slab_pool_t>,
    /// The header.
    header: NonNull<Header>,
    /// The mutex belongs to the process that took it.
    not_send: PhantomData<*mut ()>,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: `Store::lock_within` took the mutex in this process, and nothing else gives it back.
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

    /// Forgets what a writer that died did not publish, wishes and servers beyond the revision of their upstream, and
    /// makes anew all that leads to servers.
    fn recover(&mut self) {
        let upstream = self.header().writing;
        if upstream.is_null() {
            return;
        }
        // SAFETY: the pointer was written by a process of ours to a record in the zone, records of upstreams are never
        // freed, and the lock is held. The list of servers is whole at every moment. What the dead writer
        // reserved and had given to no server stays allocated.
        unsafe {
            let revision = *(*upstream).revision.get_mut();
            (*upstream).indexed = UNKNOWN;
            let mut link = &raw mut (*upstream).servers;
            while let Some(server) = NonNull::new(*link) {
                let record = server.as_ptr();
                for wish in &mut (*record).wishes {
                    if wish.revision > revision {
                        *wish = Wish::of_configuration((*record).base);
                    }
                }
                if (*record).exists(revision) {
                    (*record).gone = 0;
                    link = &raw mut (*record).next;
                } else {
                    *link = (*record).next;
                    fence(Ordering::SeqCst);
                    death::may_come();
                    self.free_server(record);
                }
            }
            self.rebuild(upstream);
        }
        self.end_writing(ptr::null_mut());
    }

    /// Bytes of zeroes in the zone.
    pub(super) fn alloc<T>(&mut self) -> Result<*mut T, Full> {
        // SAFETY: the mutex is held. Slab chunks are aligned to their size, rounded up to a power of two, so that any T
        // up to a page is aligned.
        let record = unsafe { ngx_slab_calloc_locked(self.pool.as_ptr(), size_of::<T>()) };
        if record.is_null() { Err(Full { needed: size_of::<T>() }) } else { Ok(record.cast()) }
    }

    /// How many chunks of such a size there is room for: of one that is less than a page.
    pub(super) fn chunks_left(&self, size: usize) -> usize {
        let pool = self.pool.as_ptr();
        let shift = size.next_power_of_two().trailing_zeros() as usize;
        // SAFETY: the mutex is held. nginx sets the size of a page once, and keeps figures for each size of chunk from
        // the least to half a page; whole pages beyond.
        unsafe {
            let pages = (*pool).pfree;
            let Some(at) = shift.checked_sub((*pool).min_shift).filter(|_| shift < ngx_pagesize_shift) else {
                return pages;
            };
            let figures = (*pool).stats.add(at);
            let parts = (*figures).total.saturating_sub((*figures).used);
            pages.saturating_mul(1 << (ngx_pagesize_shift - shift)).saturating_add(parts)
        }
    }

    /// So many bytes of zeroes; null if there is no room.
    pub(super) fn alloc_bytes(&mut self, size: usize) -> *mut c_void {
        // SAFETY: the mutex is held.
        unsafe { ngx_slab_calloc_locked(self.pool.as_ptr(), size) }
    }

    /// A copy of `bytes` in the zone.
    pub(super) fn alloc_text(&mut self, bytes: &[u8]) -> Result<Text, Full> {
        // SAFETY: the mutex is held; the chunk is as long as the bytes, and nobody else knows it yet.
        unsafe {
            let data = ngx_slab_alloc_locked(self.pool.as_ptr(), bytes.len().max(1)).cast::<u8>();
            if data.is_null() {
                return Err(Full { needed: bytes.len() });
            }
            data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Ok(Text { data, len: bytes.len() })
        }
    }

    /// Gives a chunk back; null is nothing.
    ///
    /// # Safety
    ///
    /// The chunk came from this zone, and nothing refers to it any more.
    pub(super) unsafe fn free<T>(&mut self, chunk: *mut T) {
        if !chunk.is_null() {
            // SAFETY: the mutex is held; see above for the chunk.
            unsafe { ngx_slab_free_locked(self.pool.as_ptr(), chunk.cast()) };
        }
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
