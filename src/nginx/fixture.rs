//! nginx's own objects in a test: a shared zone in the heap.
//!
//! nginx's code has one thread, so these tests run with `--test-threads=1`.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr::{self, NonNull};
use std::sync::Once;

use nginx_sys::{
    ngx_cycle, ngx_cycle_t, ngx_log_t, ngx_ncpu, ngx_pagesize, ngx_pagesize_shift, ngx_shm_zone_t,
    ngx_shmtx_create, ngx_slab_alloc, ngx_slab_init, ngx_slab_pool_t, ngx_slab_sizes_init, ngx_uint_t,
};

/// Size of a page in these tests, in bytes.
const PAGE: usize = 4096;

/// Sets up what nginx's `main` would.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: nothing else runs nginx's code, and the structures are plain words, for which zeroes are a start.
        unsafe {
            ngx_pagesize = PAGE;
            ngx_pagesize_shift = PAGE.trailing_zeros() as ngx_uint_t;
            ngx_ncpu = 1;
            let log = Box::leak(Box::new(std::mem::zeroed::<ngx_log_t>()));
            let cycle = Box::leak(Box::new(std::mem::zeroed::<ngx_cycle_t>()));
            cycle.log = log;
            ngx_cycle = cycle;
            ngx_slab_sizes_init();
        }
    });
}

/// A zone in the heap; it is never given back.
pub fn shm_zone(pages: usize) -> NonNull<ngx_shm_zone_t> {
    start();
    let size = pages * PAGE;
    // SAFETY: the block is aligned to a page and as long as the pool is told; nginx sets a zone up in the same order.
    unsafe {
        let block = alloc_zeroed(Layout::from_size_align(size, PAGE).unwrap());
        let pool: *mut ngx_slab_pool_t = block.cast();
        (*pool).end = block.add(size);
        (*pool).min_shift = 3;
        (*pool).addr = block.cast();
        assert_eq!(ngx_shmtx_create(&raw mut (*pool).mutex, &raw mut (*pool).lock, ptr::null_mut()), 0);
        ngx_slab_init(pool);
        ngx_slab_pool_t::set_log_nomem_raw(pool, 0);
        let zone = Box::leak(Box::new(std::mem::zeroed::<ngx_shm_zone_t>()));
        zone.shm.addr = block;
        zone.shm.size = size;
        NonNull::from(zone)
    }
}

/// The slab pool of a zone.
pub fn pool(zone: NonNull<ngx_shm_zone_t>) -> *mut ngx_slab_pool_t {
    // SAFETY: made by `shm_zone`.
    unsafe { (*zone.as_ptr()).shm.addr.cast() }
}

/// Takes all memory of a zone.
pub fn exhaust(zone: NonNull<ngx_shm_zone_t>) {
    for size in [2048, 1024, 512, 256, 128, 64, 32, 16, 8] {
        // SAFETY: made by `shm_zone`; the chunks stay taken.
        while !unsafe { ngx_slab_alloc(pool(zone), size) }.is_null() {}
    }
}

/// Free pages of a zone.
pub fn free_pages(zone: NonNull<ngx_shm_zone_t>) -> usize {
    // SAFETY: made by `shm_zone`.
    unsafe { (*pool(zone)).pfree }
}

/// Chunks and pages of a zone that are taken: a number for each size of chunk, and the pages.
pub fn used(zone: NonNull<ngx_shm_zone_t>) -> Vec<usize> {
    let pool = pool(zone);
    // SAFETY: made by `shm_zone`; nginx keeps a record for each size of chunk from `min_shift` to half a page.
    unsafe {
        let sizes = ngx_pagesize_shift - (*pool).min_shift;
        let stats = std::slice::from_raw_parts((*pool).stats, sizes);
        stats.iter().map(|size| size.used).chain([(*pool).pfree]).collect()
    }
}
