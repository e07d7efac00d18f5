//! nginx 1.27.3 and newer: peers are counted by reference, and workers notice when the lists change.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nginx_sys::{
    ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_shmtx_lock, ngx_shmtx_unlock,
    ngx_slab_free_locked, ngx_slab_pool_t, ngx_sockaddr_t,
};

use crate::model::snapshot::Method;

use super::backend::Backend;
use super::prepared::{Full, calloc, name_size};

/// Length of what sticky sessions know a peer by: NGX_HTTP_UPSTREAM_SID_LEN.
const SID_LEN: usize = 32;

/// The backend of nginx with `rr_peers_t.config` and `rr_peer_t.refs`.
pub struct Native;

#[cfg(nginx_peer_sid)]
unsafe extern "C" {
    /// Writes what sticky sessions know a peer by.
    fn nuc_sid(sid: *mut u8, name: *const u8, len: usize);
}

impl Backend for Native {
    const CHANGES_MEMBERS: bool = true;

    unsafe fn membership(peers: *const ngx_http_upstream_rr_peers_t) -> u64 {
        // SAFETY: the caller says that the list is mapped; `config` is set once, before the workers start, and points
        // into the same zone. Other workers write the word under their locks, so it is read atomically.
        unsafe {
            let config = (*peers).config;
            if config.is_null() { 0 } else { AtomicU64::from_ptr(config.cast()).load(Ordering::Acquire) }
        }
    }

    unsafe fn moved(peers: *mut ngx_http_upstream_rr_peers_t) {
        // SAFETY: both write locks are held, as every writer of this word must; see `membership` for the pointer.
        unsafe {
            let config = (*peers).config;
            if !config.is_null() {
                AtomicU64::from_ptr(config.cast()).fetch_add(1, Ordering::Release);
            }
        }
    }

    fn refs(peer: &ngx_http_upstream_rr_peer_t) -> u64 {
        peer.refs as u64
    }

    fn managed(peer: &ngx_http_upstream_rr_peer_t) -> bool {
        !peer.host.is_null()
    }

    fn can_set_weight(_method: Method) -> bool {
        true
    }

    unsafe fn prepare(
        pool: NonNull<ngx_slab_pool_t>,
        server: &[u8],
        sessions: bool,
    ) -> Result<NonNull<ngx_http_upstream_rr_peer_t>, Full> {
        // The chunks that nginx itself allocates for a peer, and frees when the last request is done with it.
        let sizes = [
            size_of::<ngx_http_upstream_rr_peer_t>(),
            size_of::<ngx_sockaddr_t>(),
            name_size(),
            server.len().max(1),
            if sessions { SID_LEN } else { 0 },
        ];
        // SAFETY: the chunks have these sizes, and nobody else knows them.
        unsafe {
            let [peer, address, name, text, sid] = calloc(pool, &sizes)?;
            let peer = NonNull::new(peer.cast::<ngx_http_upstream_rr_peer_t>()).ok_or(Full { needed: 0 })?;
            (*peer.as_ptr()).sockaddr = address.cast();
            (*peer.as_ptr()).name.data = name;
            (*peer.as_ptr()).server.data = text;
            (*peer.as_ptr()).server.len = server.len();
            text.copy_from_nonoverlapping(server.as_ptr(), server.len());
            set_sid(peer.as_ptr(), sid);
            Ok(peer)
        }
    }

    #[cfg(nginx_peer_sid)]
    unsafe fn name_session(peer: *mut ngx_http_upstream_rr_peer_t, sessions: bool) {
        if sessions {
            // SAFETY: `prepare` made the buffer, which is as long as what is written.
            unsafe {
                nuc_sid((*peer).sid.data, (*peer).name.data, (*peer).name.len);
                (*peer).sid.len = SID_LEN;
            }
        }
    }

    #[cfg(not(nginx_peer_sid))]
    unsafe fn name_session(_peer: *mut ngx_http_upstream_rr_peer_t, _sessions: bool) {}

    #[cfg(nginx_peer_sid)]
    unsafe fn inherit_session(
        peer: *const ngx_http_upstream_rr_peer_t,
        heir: *mut ngx_http_upstream_rr_peer_t,
    ) {
        // SAFETY: see above; both buffers are as long as what sticky sessions know peers by.
        unsafe {
            let len = (*peer).sid.len.min(SID_LEN);
            if (*peer).route() != 0 && !(*peer).sid.data.is_null() && !(*heir).sid.data.is_null() {
                (*heir).sid.data.copy_from_nonoverlapping((*peer).sid.data, len);
                (*heir).sid.len = len;
                ngx_http_upstream_rr_peer_t::set_route_raw(heir, 1);
            }
        }
    }

    #[cfg(not(nginx_peer_sid))]
    unsafe fn inherit_session(
        _peer: *const ngx_http_upstream_rr_peer_t,
        _heir: *mut ngx_http_upstream_rr_peer_t,
    ) {
    }

    unsafe fn release(pool: NonNull<ngx_slab_pool_t>, peer: NonNull<ngx_http_upstream_rr_peer_t>) {
        let (pool, peer) = (pool.as_ptr(), peer.as_ptr());
        // SAFETY: nothing refers to the peer; its chunks are the zone's. Which of them nginx filled in depends on how it
        // was built, so each is freed if it is there.
        unsafe {
            let chunks = [
                (*peer).sockaddr.cast(),
                (*peer).name.data,
                (*peer).server.data,
                sid(peer),
                (*peer).ssl_session.cast(),
                peer.cast(),
            ];
            ngx_shmtx_lock(&raw mut (*pool).mutex);
            for chunk in chunks {
                if chunk >= (*pool).start && chunk < (*pool).end {
                    ngx_slab_free_locked(pool, chunk.cast());
                }
            }
            ngx_shmtx_unlock(&raw mut (*pool).mutex);
        }
    }

    unsafe fn share(primary: *mut ngx_http_upstream_rr_peers_t, backup: *mut ngx_http_upstream_rr_peers_t) {
        // SAFETY: the lock of the one is held, nobody knows the other.
        unsafe { (*backup).config = (*primary).config };
    }

    unsafe fn bury(peer: *mut ngx_http_upstream_rr_peer_t) {
        // SAFETY: under both write locks nobody else reads or writes these words.
        unsafe {
            (*peer).refs += 1;
            ngx_http_upstream_rr_peer_t::set_zombie_raw(peer, 1);
        }
    }

    unsafe fn is_last(peer: *const ngx_http_upstream_rr_peer_t) -> bool {
        // SAFETY: likewise.
        unsafe { (*peer).refs == 1 }
    }

    fn is_zombie(peer: &ngx_http_upstream_rr_peer_t) -> bool {
        peer.zombie() != 0
    }
}

/// Notes the buffer of what sticky sessions know a peer by.
///
/// # Safety
///
/// The peer is known to nobody else.
#[cfg(nginx_peer_sid)]
unsafe fn set_sid(peer: *mut ngx_http_upstream_rr_peer_t, buffer: *mut u8) {
    // SAFETY: see above.
    unsafe { (*peer).sid.data = buffer };
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
unsafe fn set_sid(_peer: *mut ngx_http_upstream_rr_peer_t, _buffer: *mut u8) {}

/// The buffer of what sticky sessions know a peer by.
///
/// # Safety
///
/// Nothing else refers to the peer.
#[cfg(nginx_peer_sid)]
unsafe fn sid(peer: *mut ngx_http_upstream_rr_peer_t) -> *mut u8 {
    // SAFETY: see above.
    unsafe { (*peer).sid.data }
}

/// An nginx that knows no sticky sessions.
#[cfg(not(nginx_peer_sid))]
unsafe fn sid(_peer: *mut ngx_http_upstream_rr_peer_t) -> *mut u8 {
    std::ptr::null_mut()
}
