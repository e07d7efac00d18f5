//! nginx before 1.27.3: the lists of peers are fixed from the start of the configuration to its end.

mod points;
#[cfg_attr(
    not(all(test, feature = "nginx-objs")),
    expect(dead_code, reason = "the hook does not call it yet")
)]
pub mod tables;

use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_slab_pool_t};

use crate::model::snapshot::Method;

use super::backend::{Backend, caches_weights};
use super::prepared::Full;

/// The backend of nginx whose peers are neither counted by reference nor versioned.
pub struct Slots;

impl Backend for Slots {
    const CHANGES_MEMBERS: bool = false;

    unsafe fn membership(_peers: *const ngx_http_upstream_rr_peers_t) -> u64 {
        0
    }

    unsafe fn moved(_peers: *mut ngx_http_upstream_rr_peers_t) {}

    fn refs(_peer: &ngx_http_upstream_rr_peer_t) -> u64 {
        0
    }

    fn managed(_peer: &ngx_http_upstream_rr_peer_t) -> bool {
        false
    }

    fn can_set_weight(method: Method) -> bool {
        !caches_weights(method)
    }

    unsafe fn prepare(
        _pool: NonNull<ngx_slab_pool_t>,
        _server: &[u8],
        _sessions: bool,
    ) -> Result<NonNull<ngx_http_upstream_rr_peer_t>, Full> {
        Err(Full { needed: 0 })
    }

    unsafe fn name_session(_peer: *mut ngx_http_upstream_rr_peer_t, _sessions: bool) {}

    unsafe fn inherit_session(
        _peer: *const ngx_http_upstream_rr_peer_t,
        _heir: *mut ngx_http_upstream_rr_peer_t,
    ) {
    }

    unsafe fn release(_pool: NonNull<ngx_slab_pool_t>, _peer: NonNull<ngx_http_upstream_rr_peer_t>) {}

    unsafe fn share(_primary: *mut ngx_http_upstream_rr_peers_t, _backup: *mut ngx_http_upstream_rr_peers_t) {
    }

    unsafe fn bury(_peer: *mut ngx_http_upstream_rr_peer_t) {}

    unsafe fn is_last(_peer: *const ngx_http_upstream_rr_peer_t) -> bool {
        false
    }

    fn is_zombie(_peer: &ngx_http_upstream_rr_peer_t) -> bool {
        false
    }
}
