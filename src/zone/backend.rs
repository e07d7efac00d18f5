//! What one kind of nginx can do to live peers, and the other cannot.

use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_slab_pool_t};

use crate::model::snapshot::Method;

use super::prepared::Full;

/// One kind of nginx.
pub trait Backend {
    /// Whether servers can be added and removed at run time.
    const CHANGES_MEMBERS: bool;

    /// nginx's own count of changes to the lists of an upstream, or 0 where it keeps none: the lists of such an
    /// nginx never change.
    ///
    /// # Safety
    ///
    /// `peers` is a list of peers in shared memory that this process has mapped.
    unsafe fn membership(peers: *const ngx_http_upstream_rr_peers_t) -> u64;

    /// Makes the workers forget what their balancers computed from the lists.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held.
    unsafe fn moved(peers: *mut ngx_http_upstream_rr_peers_t);

    /// Requests that hold a reference to the peer; 0 where nginx counts none.
    fn refs(peer: &ngx_http_upstream_rr_peer_t) -> u64;

    /// Whether nginx makes and removes the peer as a name resolves.
    fn managed(peer: &ngx_http_upstream_rr_peer_t) -> bool;

    /// Whether weights may change under this method.
    fn can_set_weight(method: Method) -> bool;

    /// A peer of zeroes with its buffers, and with its text.
    ///
    /// # Safety
    ///
    /// The pool is mapped.
    unsafe fn prepare(
        pool: NonNull<ngx_slab_pool_t>,
        server: &[u8],
        sessions: bool,
    ) -> Result<NonNull<ngx_http_upstream_rr_peer_t>, Full>;

    /// Writes what sticky sessions know the peer by, if there are any.
    ///
    /// # Safety
    ///
    /// The peer was made by `prepare` with the same `sessions`, has its name, and is linked nowhere.
    unsafe fn name_session(peer: *mut ngx_http_upstream_rr_peer_t, sessions: bool);

    /// Hands on what sticky sessions know a peer by, if the configuration gave it a name for them.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held; the heir was made by `prepare` and is known to nobody else.
    unsafe fn inherit_session(
        peer: *const ngx_http_upstream_rr_peer_t,
        heir: *mut ngx_http_upstream_rr_peer_t,
    );

    /// Frees a peer.
    ///
    /// # Safety
    ///
    /// It came from this pool, and nothing refers to it.
    unsafe fn release(pool: NonNull<ngx_slab_pool_t>, peer: NonNull<ngx_http_upstream_rr_peer_t>);

    /// Shares the word that counts changes with a new list of backups.
    ///
    /// # Safety
    ///
    /// The write lock of `primary` is held, and `backup` is linked nowhere.
    unsafe fn share(primary: *mut ngx_http_upstream_rr_peers_t, backup: *mut ngx_http_upstream_rr_peers_t);

    /// Takes a reference to a peer that leaves, and marks it.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held.
    unsafe fn bury(peer: *mut ngx_http_upstream_rr_peer_t);

    /// Whether the module's own reference is the last.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held, and the peer was buried.
    unsafe fn is_last(peer: *const ngx_http_upstream_rr_peer_t) -> bool;

    /// Whether the peer left its list while requests use it.
    fn is_zombie(peer: &ngx_http_upstream_rr_peer_t) -> bool;
}

/// Whether the method keeps weights in tables of each worker, made when nginx's count of changes moves.
pub(super) fn caches_weights(method: Method) -> bool {
    matches!(method, Method::Random | Method::HashConsistent)
}
