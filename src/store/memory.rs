//! Memory of the module's zone.

use std::ffi::c_void;

use nginx_sys::{ngx_pagesize_shift, ngx_slab_alloc_locked, ngx_slab_calloc_locked, ngx_slab_free_locked};

use super::lock::Locked;
use super::records::Text;

/// No room left in the module's zone for this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Bytes that were needed.
    pub needed: usize,
}

impl Locked {
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
}
