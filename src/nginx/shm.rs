//! Shared zones.

use std::ptr::NonNull;

use nginx_sys::{
    NGX_OK, ngx_conf_t, ngx_core_module, ngx_cycle_t, ngx_int_t, ngx_list_part_t, ngx_shared_memory_add,
    ngx_shm_zone_t, ngx_shmtx_lock, ngx_shmtx_unlock, ngx_slab_calloc_locked, ngx_slab_free, ngx_slab_pool_t,
    ngx_str_t,
};

use super::conf;

/// A shared zone of nginx's.
pub type Zone = NonNull<ngx_shm_zone_t>;

/// Asks nginx for a shared zone that survives reloads as long as its name and size stay.
///
/// The tag is a core module's address: one in this module's file would change when the file is replaced, and nginx
/// would drop the zone at the next reload. Nothing is done when the zone is ready; whoever needs it opens it in
/// `init_module`.
///
/// # Safety
///
/// Called while the configuration is read.
pub unsafe fn add(cf: NonNull<ngx_conf_t>, name: &str, size: usize) -> Option<Zone> {
    // SAFETY: the configuration is being read, so its pool is there; nginx keeps the pointer to the name's bytes, which
    // live in that pool.
    unsafe {
        let mut name: ngx_str_t = conf::pool_str((*cf.as_ptr()).pool, name)?;
        let tag = (&raw mut ngx_core_module).cast();
        let zone = NonNull::new(ngx_shared_memory_add(cf.as_ptr(), &raw mut name, size, tag))?;
        (*zone.as_ptr()).init = Some(ready);
        Some(zone)
    }
}

/// nginx's entry: the zone is mapped, and has a slab pool.
unsafe extern "C" fn ready(zone: *mut ngx_shm_zone_t, old: *mut std::ffi::c_void) -> ngx_int_t {
    // SAFETY: nginx calls this with a zone of the configuration that it is about to start.
    unsafe { (*zone).data = old };
    NGX_OK as ngx_int_t
}

/// The zone of this name in a configuration that ran before.
///
/// # Safety
///
/// `cycle` is null, or a configuration whose zones are still mapped: the old one, in `init_module`.
pub unsafe fn find(cycle: *const ngx_cycle_t, name: &str) -> Option<Zone> {
    // SAFETY: nginx keeps the zones of a configuration in a list of arrays.
    unsafe {
        let mut part: *const ngx_list_part_t = &raw const cycle.as_ref()?.shared_memory.part;
        while let Some(present) = part.as_ref() {
            for at in 0..present.nelts {
                let zone = NonNull::new(present.elts.cast::<ngx_shm_zone_t>().add(at))?;
                if conf::bytes(&zone.as_ref().shm.name) == name.as_bytes() {
                    return Some(zone);
                }
            }
            part = present.next;
        }
    }
    None
}

/// Size of a zone, in bytes.
pub fn size(zone: Zone) -> usize {
    // SAFETY: zones live as long as their configurations, one of which is starting while the other runs.
    unsafe { zone.as_ref().shm.size }
}

/// The zone of this name in the configuration that runs while another one is read.
///
/// # Safety
///
/// Called while the configuration is read.
pub unsafe fn running(cf: NonNull<ngx_conf_t>, name: &str) -> Option<Zone> {
    // SAFETY: nginx notes the configuration that runs, or an empty one at its start, before it reads the next.
    unsafe { find((*(*cf.as_ptr()).cycle).old_cycle, name) }
}

/// Whether two zones are the same memory.
pub fn is_same(one: Zone, other: Zone) -> bool {
    // SAFETY: zones live as long as their configurations, one of which is starting while the other runs.
    unsafe { one.as_ref().shm.addr == other.as_ref().shm.addr }
}

/// One value of its own in a zone of nginx's.
pub struct Word<T>(std::marker::PhantomData<T>);

impl<T> Word<T> {
    /// Zeroes for one value; none if the zone is full, which nginx is kept from logging, since the caller says it in
    /// words of its own.
    ///
    /// # Safety
    ///
    /// The pool is mapped; all zeroes are a T.
    pub unsafe fn alloc(pool: NonNull<ngx_slab_pool_t>) -> Option<NonNull<T>> {
        let pool = pool.as_ptr();
        // SAFETY: the pool is mapped; its mutex is taken for the words that it guards.
        unsafe {
            ngx_shmtx_lock(&raw mut (*pool).mutex);
            let logs = ngx_slab_pool_t::log_nomem_raw(pool);
            ngx_slab_pool_t::set_log_nomem_raw(pool, 0);
            let word = ngx_slab_calloc_locked(pool, size_of::<T>());
            ngx_slab_pool_t::set_log_nomem_raw(pool, logs);
            ngx_shmtx_unlock(&raw mut (*pool).mutex);
            NonNull::new(word.cast())
        }
    }

    /// Gives the value back.
    ///
    /// # Safety
    ///
    /// It came from this pool, and nobody uses it any more.
    pub unsafe fn free(pool: NonNull<ngx_slab_pool_t>, word: NonNull<T>) {
        // SAFETY: see above.
        unsafe { ngx_slab_free(pool.as_ptr(), word.as_ptr().cast()) };
    }
}
