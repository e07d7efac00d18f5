//! What one kind of nginx can do to live peers, and the other cannot.

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t};

use crate::model::snapshot::Method;

/// One kind of nginx.
pub trait Backend {
    /// nginx's own count of changes to the lists of an upstream, or 0 where it keeps none: the lists of such an
    /// nginx never change.
    ///
    /// # Safety
    ///
    /// `peers` is a list of peers in shared memory that this process has mapped.
    unsafe fn membership(peers: *const ngx_http_upstream_rr_peers_t) -> u64;

    /// Requests that hold a reference to the peer; 0 where nginx counts none.
    fn refs(peer: &ngx_http_upstream_rr_peer_t) -> u64;

    /// Whether weights may change under this method.
    fn can_set_weight(method: Method) -> bool;

    /// Makes the workers forget what their balancers computed from the weights.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held.
    unsafe fn weights_changed(peers: *mut ngx_http_upstream_rr_peers_t, method: Method);
}

/// Whether the method keeps weights in tables of each worker, made when nginx's count of changes moves.
pub(super) fn caches_weights(method: Method) -> bool {
    matches!(method, Method::Random | Method::HashConsistent)
}
