//! Memory of the heap, so that a worker survives the lack of it.
//!
//! An allocation that fails ends the process, unless it is asked for in words that can be refused. So each process keeps
//! some memory back: an allocation that finds none is given that, and whoever begins something looks first whether it is
//! still there. Small things are allocated in between without care. What others can make large is asked for by
//! `try_reserve`, or kept back in addition while it is allocated: [`spare`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use libc::c_void;

/// Bytes that are kept back: more than is allocated without care between two looks. Untouched, they are addresses only.
const KEPT: usize = 4 << 20;

/// So few bytes are among those: to keep them in addition is not worth the time.
const SMALL: usize = KEPT / 8;

/// What is kept back, see [`MAPPED`]; null while there is nothing.
static CHUNK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// How many bytes that has.
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Mark in the address of a chunk that is a mapping. No address that is given out is odd.
const MAPPED: usize = 1;

/// The allocator of this module.
struct Heap;

/// Rust's allocations in this module, and in nothing else of the process.
#[global_allocator]
static HEAP: Heap = Heap;

/// Memory that is kept back beside the usual until this is dropped.
#[must_use]
pub struct Spare {
    /// How much there was before.
    before: usize,
}

/// Whether there is memory to begin something small.
pub fn is_left() -> bool {
    spare(0).is_some()
}

/// Keeps so many bytes back, for allocations that cannot be refused: until the result is dropped they find as much in
/// any case. None if there is not as much.
pub fn spare(bytes: usize) -> Option<Spare> {
    let before = SIZE.load(Ordering::Relaxed).max(KEPT);
    let wanted = if bytes > SMALL { before.checked_add(bytes)? } else { before };
    (SIZE.load(Ordering::Relaxed) == wanted || keep(wanted)).then_some(Spare { before })
}

impl Drop for Spare {
    fn drop(&mut self) {
        if SIZE.load(Ordering::Relaxed) > self.before {
            keep(self.before);
        }
    }
}

/// Keeps so many bytes back in the place of what was kept. If there are not as many, false, and as much as before.
fn keep(bytes: usize) -> bool {
    let before = SIZE.load(Ordering::Relaxed);
    let_go();
    let is_kept = take(bytes);
    if !is_kept && before > 0 {
        take(before);
    }
    is_kept
}

/// Takes so many bytes to keep, where nothing is kept. False if there are not as many.
fn take(bytes: usize) -> bool {
    let chunk = map(bytes).unwrap_or_else(|| {
        // No addresses are left, but what was freed may be enough.
        // SAFETY: any size may be asked for.
        unsafe { libc::malloc(bytes) }
    });
    if !chunk.is_null() {
        SIZE.store(bytes, Ordering::Relaxed);
        free(CHUNK.swap(chunk, Ordering::AcqRel));
    }
    !chunk.is_null()
}

/// Asks the system for so many bytes, more than a page. The C library is left out: it would take a large chunk that is
/// freed for a sign that it should give less back. The address is marked by [`MAPPED`].
fn map(bytes: usize) -> Option<*mut c_void> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, wherever there is place for it.
    let chunk = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
    if chunk == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping begins at a page, is longer than a word, and nobody else knows it.
    unsafe { chunk.cast::<usize>().write(bytes) };
    Some(chunk.wrapping_byte_add(MAPPED))
}

/// Gives back what was kept. False if it was nothing.
fn let_go() -> bool {
    SIZE.store(0, Ordering::Relaxed);
    let chunk = CHUNK.swap(ptr::null_mut(), Ordering::AcqRel);
    free(chunk);
    !chunk.is_null()
}

/// Frees a chunk, or null.
fn free(chunk: *mut c_void) {
    // SAFETY: chunks are made by `take`, and whoever takes one out of its place is the only one to have it. A chunk that
    // is marked is a mapping, which begins with its length; one that is not is from `malloc`.
    unsafe {
        if chunk.addr() & MAPPED == 0 {
            libc::free(chunk);
        } else {
            let start = chunk.wrapping_byte_sub(MAPPED);
            // This cannot fail for a whole mapping.
            let _ = libc::munmap(start, start.cast::<usize>().read());
        }
    }
}

/// Allocates, for a second time if that fails and what is kept back may be enough.
fn allocate(size: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let place = allocate();
    if place.is_null() && size <= SIZE.load(Ordering::Relaxed) && let_go() { allocate() } else { place }
}

// SAFETY: all is done by the system's allocator, whose contract this is; a call that failed has changed nothing.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the duty of the caller.
        allocate(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the duty of the caller.
        allocate(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the duty of the caller.
        allocate(size, || unsafe { System.realloc(place, layout, size) })
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the duty of the caller; the place is the system's.
        unsafe { System.dealloc(place, layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_was_asked_for_is_kept() {
        assert!(is_left());
        {
            let _one = spare(1 << 20).unwrap();
            assert!(SIZE.load(Ordering::Relaxed) >= KEPT + (1 << 20));
            let two = spare(1 << 30).unwrap();
            assert!(spare(usize::MAX / 4).is_none() && spare(usize::MAX).is_none());
            assert!(SIZE.load(Ordering::Relaxed) > 1 << 30, "what was kept is there");
            drop(two);
            assert!(SIZE.load(Ordering::Relaxed) < 1 << 30);
        }
        assert_eq!(SIZE.load(Ordering::Relaxed), KEPT);
        // What cannot be found in it does not cost it.
        assert!(Vec::<u8>::new().try_reserve_exact(usize::MAX / 4).is_err());
        assert_eq!(SIZE.load(Ordering::Relaxed), KEPT);
        let given =
            allocate(5, || if SIZE.load(Ordering::Relaxed) > 0 { ptr::null_mut() } else { [0].as_mut_ptr() });
        assert!(!given.is_null() && SIZE.load(Ordering::Relaxed) == 0);
        assert!(is_left());
    }
}
