//! The peers of a list.

use std::ptr::NonNull;

use nginx_sys::ngx_str_t;

use super::nginx_peers::{RawPeer, RawPeers};

/// The peers of a list whose lock is held.
#[derive(Clone)]
pub(super) struct Peers {
    /// The next one.
    next: *mut RawPeer,
}

impl Peers {
    /// # Safety
    ///
    /// The lock of `list` is held for as long as the iterator and what it returns are used.
    pub(super) unsafe fn of(list: NonNull<RawPeers>) -> Self {
        // SAFETY: a `Zone` holds lists that nginx made; they are mapped as long as their configuration lives.
        let next = unsafe { (*list.as_ptr()).peer };
        Self { next }
    }

    /// Peers that are linked, from one on.
    ///
    /// # Safety
    ///
    /// The lock that guards the links is held, likewise.
    #[cfg(not(nginx_peer_refs))]
    pub(super) unsafe fn starting(first: *mut RawPeer) -> Self {
        Self { next: first }
    }
}

impl Iterator for Peers {
    type Item = NonNull<RawPeer>;

    fn next(&mut self) -> Option<Self::Item> {
        let peer = NonNull::new(self.next)?;
        // SAFETY: peers that are linked while the lock is held are not freed before it is given back.
        self.next = unsafe { (*peer.as_ptr()).next };
        Some(peer)
    }
}

/// The bytes of a string of nginx's.
///
/// # Safety
///
/// `string` points to its bytes, and they live as long as it does.
pub(super) unsafe fn bytes(string: &ngx_str_t) -> &[u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts(string.data, string.len) }
}
