//! What sticky sessions know a peer by, in an nginx that has them.

use super::super::nginx_peers::RawPeer;

/// Length of what sticky sessions know a peer by: NGX_HTTP_UPSTREAM_SID_LEN.
pub(super) const SID_LEN: usize = 32;

#[cfg(nginx_peer_sid)]
unsafe extern "C" {
    /// Writes what sticky sessions know a peer by.
    fn nuc_sid(sid: *mut u8, name: *const u8, len: usize);
}

/// Writes what sticky sessions know the peer by, if there are any.
///
/// # Safety
///
/// The peer has the buffer for it if `sessions` is true, has its name, and is linked nowhere.
#[cfg(nginx_peer_sid)]
pub(super) unsafe fn name(peer: *mut RawPeer, sessions: bool) {
    if sessions {
        // SAFETY: see above; the buffer is as long as what is written.
        unsafe {
            nuc_sid((*peer).sid.data, (*peer).name.data, (*peer).name.len);
            (*peer).sid.len = SID_LEN;
        }
    }
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
pub(super) unsafe fn name(_peer: *mut RawPeer, _sessions: bool) {}

/// Hands on what sticky sessions know a peer by, if the configuration gave it a name for them.
///
/// # Safety
///
/// The write locks of both lists are held; the heir was made here and is known to nobody else.
#[cfg(nginx_peer_sid)]
pub(super) unsafe fn inherit(peer: *const RawPeer, heir: *mut RawPeer) {
    // SAFETY: see above; both buffers are as long as what sticky sessions know peers by.
    unsafe {
        let len = (*peer).sid.len.min(SID_LEN);
        if (*peer).route() != 0 && !(*peer).sid.data.is_null() && !(*heir).sid.data.is_null() {
            (*heir).sid.data.copy_from_nonoverlapping((*peer).sid.data, len);
            (*heir).sid.len = len;
            RawPeer::set_route_raw(heir, 1);
        }
    }
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
pub(super) unsafe fn inherit(_peer: *const RawPeer, _heir: *mut RawPeer) {}

/// Whether sticky sessions know a peer by what they shall know another by, which takes the name of the peer `before` it
/// if the configuration gave that one.
///
/// # Safety
///
/// The locks of both lists are held; each peer is linked, kept as a zombie, or known to nobody else.
#[cfg(nginx_peer_sid)]
pub(super) unsafe fn are_same(peer: *const RawPeer, other: *const RawPeer, before: *const RawPeer) -> bool {
    use super::super::peers::bytes;

    // SAFETY: see above.
    unsafe {
        let other = before.as_ref().filter(|before| before.route() != 0).map_or(other, std::ptr::from_ref);
        bytes(&(*peer).sid) == bytes(&(*other).sid)
    }
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
pub(super) unsafe fn are_same(
    _peer: *const RawPeer,
    _other: *const RawPeer,
    _before: *const RawPeer,
) -> bool {
    true
}

/// Notes the buffer of what sticky sessions know a peer by.
///
/// # Safety
///
/// The peer is known to nobody else.
#[cfg(nginx_peer_sid)]
pub(super) unsafe fn set_buffer(peer: *mut RawPeer, buffer: *mut u8) {
    // SAFETY: see above.
    unsafe { (*peer).sid.data = buffer };
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
pub(super) unsafe fn set_buffer(_peer: *mut RawPeer, _buffer: *mut u8) {}

/// The buffer of what sticky sessions know a peer by.
///
/// # Safety
///
/// Nothing else refers to the peer.
#[cfg(nginx_peer_sid)]
pub(super) unsafe fn buffer(peer: *mut RawPeer) -> *mut u8 {
    // SAFETY: see above.
    unsafe { (*peer).sid.data }
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
pub(super) unsafe fn buffer(_peer: *mut RawPeer) -> *mut u8 {
    std::ptr::null_mut()
}
