//! nginx before 1.27.3: the lists of peers are fixed from the start of the configuration to its end.

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t};

use crate::model::snapshot::Method;

use super::backend::{Backend, caches_weights};

/// The backend of nginx whose peers are neither counted by reference nor versioned.
pub struct Slots;

impl Backend for Slots {
    unsafe fn membership(_peers: *const ngx_http_upstream_rr_peers_t) -> u64 {
        0
    }

    fn refs(_peer: &ngx_http_upstream_rr_peer_t) -> u64 {
        0
    }

    fn can_set_weight(method: Method) -> bool {
        !caches_weights(method)
    }

    unsafe fn weights_changed(_peers: *mut ngx_http_upstream_rr_peers_t, _method: Method) {}
}
