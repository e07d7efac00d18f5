//! nginx 1.27.3 and newer: peers are counted by reference, and workers notice when the lists change.

use std::sync::atomic::{AtomicU64, Ordering};

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t};

use crate::model::snapshot::Method;

use super::backend::{Backend, caches_weights};

/// The backend of nginx with `rr_peers_t.config` and `rr_peer_t.refs`.
pub struct Native;

impl Backend for Native {
    unsafe fn membership(peers: *const ngx_http_upstream_rr_peers_t) -> u64 {
        // SAFETY: the caller says that the list is mapped; `config` is set once, before the workers start, and points
        // into the same zone. Other workers write the word under their locks, so it is read atomically.
        unsafe {
            let config = (*peers).config;
            if config.is_null() { 0 } else { AtomicU64::from_ptr(config.cast()).load(Ordering::Acquire) }
        }
    }

    fn refs(peer: &ngx_http_upstream_rr_peer_t) -> u64 {
        peer.refs as u64
    }

    fn can_set_weight(_method: Method) -> bool {
        true
    }

    unsafe fn weights_changed(peers: *mut ngx_http_upstream_rr_peers_t, method: Method) {
        if caches_weights(method) {
            // SAFETY: both write locks are held, as every writer of this word must; see `membership` for the pointer.
            unsafe {
                let config = (*peers).config;
                if !config.is_null() {
                    AtomicU64::from_ptr(config.cast()).fetch_add(1, Ordering::Release);
                }
            }
        }
    }
}
