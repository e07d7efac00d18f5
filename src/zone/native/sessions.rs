//! What sticky sessions know a peer by, in an nginx that has them.

use super::super::nginx_peers::RawPeer;
use super::super::peers::Peer;

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
        if RawPeer::route_raw(peer) != 0 && !(*peer).sid.data.is_null() && !(*heir).sid.data.is_null() {
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
#[cfg(nginx_peer_sid)]
pub(super) fn are_same(peer: Peer<'_>, other: Peer<'_>, before: Option<Peer<'_>>) -> bool {
    use super::super::peers::bytes;

    // SAFETY: the locks are held, or nobody else knows the peer: so it stays.
    let is_given = |peer: &Peer<'_>| unsafe { RawPeer::route_raw(peer.raw().as_ptr()) != 0 };
    // SAFETY: likewise.
    let sid = |peer: Peer<'_>| unsafe { bytes((&raw const (*peer.raw().as_ptr()).sid).read()) };
    sid(peer) == sid(before.filter(is_given).unwrap_or(other))
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
pub(super) fn are_same(_peer: Peer<'_>, _other: Peer<'_>, _before: Option<Peer<'_>>) -> bool {
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
