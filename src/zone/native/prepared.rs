//! A new peer, or a list of backups, in the zone's memory.

use std::cell::Cell;
use std::mem;
use std::ptr::{self, NonNull};

use nginx_sys::{
    ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_shmtx_lock, ngx_shmtx_unlock,
    ngx_slab_free, ngx_slab_free_locked, ngx_slab_pool_t, ngx_sock_ntop, ngx_sockaddr_t,
};

use crate::model::server::Server;

use super::super::apply::Abilities;
use super::super::peers::{Zone, bytes};
use super::super::place::Place;
use super::super::prepared::{Full, calloc, name_size, nuc_take_session, write_address};
use super::sessions::{self, SID_LEN};

/// A peer in the zone's memory, linked in no list. Dropping it gives the memory back.
pub struct Prepared {
    /// The pool that it came from.
    pool: NonNull<ngx_slab_pool_t>,
    /// The peer; none once it is linked.
    peer: Option<NonNull<ngx_http_upstream_rr_peer_t>>,
    /// The peer that the server had before, and that is linked in the place of the new one: requests still use it.
    pub(super) seat: Cell<Option<NonNull<ngx_http_upstream_rr_peer_t>>>,
    /// The TLS session that this one had: given back when the locks are.
    session: *mut u8,
}

impl Prepared {
    /// Makes a peer.
    ///
    /// # Errors
    ///
    /// The zone is full; nothing of it stays taken.
    pub(super) fn new(zone: &Zone, new: &Server, abilities: Abilities) -> Result<Self, Full> {
        let pool = zone.pool().ok_or(Full { needed: 0 })?;
        // SAFETY: the pool is mapped as long as the zone.
        let peer = unsafe { alloc_peer(pool, new.text.as_bytes(), abilities.drains)? };
        // SAFETY: the peer was made above, with buffers of the sizes that are written, and nobody else knows it.
        unsafe {
            let peer = peer.as_ptr();
            let address: *mut ngx_sockaddr_t = (*peer).sockaddr.cast();
            (*peer).socklen = write_address(address, &new.address);
            (*peer).name.len =
                ngx_sock_ntop((*peer).sockaddr, (*peer).socklen, (*peer).name.data, name_size(), 1);
            let weight = isize::try_from(new.terms.params.weight).unwrap_or(isize::MAX);
            (*peer).weight = weight;
            (*peer).effective_weight = weight;
            (*peer).max_conns = new.terms.params.max_conns as usize;
            (*peer).max_fails = new.terms.params.max_fails as usize;
            (*peer).fail_timeout = new.terms.params.fail_timeout as _;
            (*peer).down = abilities.down(new.terms.admin);
            sessions::name(peer, abilities.drains);
        }
        Ok(Self { pool, peer: Some(peer), seat: Cell::new(None), session: ptr::null_mut() })
    }

    /// Its address, as nginx writes it.
    pub(super) fn name(&self) -> Vec<u8> {
        // SAFETY: the peer is this value's own until it is linked.
        self.peer.map_or_else(Vec::new, |peer| unsafe { bytes(&(*peer.as_ptr()).name) }.to_vec())
    }

    /// The peer that is about to be linked; none once it is.
    pub(super) fn place(&self) -> Option<Place> {
        self.seat.get().or(self.peer).map(Place)
    }

    /// Whether a peer that left was this server's, in the place of `before` if it is to have that.
    ///
    /// # Safety
    ///
    /// The locks of both lists are held; `peer` is kept as a zombie, and `before` is linked.
    pub(super) unsafe fn had(
        &self,
        peer: NonNull<ngx_http_upstream_rr_peer_t>,
        before: Option<NonNull<ngx_http_upstream_rr_peer_t>>,
    ) -> bool {
        let Some(new) = self.peer else { return false };
        let (peer, new) = (peer.as_ptr(), new.as_ptr());
        // SAFETY: see above; an address is as long as it says. What a request may look at without a lock stays as it is:
        // the address, the name, and what sticky sessions know the peer by.
        unsafe {
            (*peer).socklen == (*new).socklen
                && libc::memcmp((*peer).sockaddr.cast(), (*new).sockaddr.cast(), (*new).socklen as usize) == 0
                && sessions::are_same(peer, new, before.map_or(ptr::null(), |before| before.as_ptr()))
        }
    }

    /// Takes over what sticky sessions know a peer by, if the configuration gave it a name for them.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held, and `peer` is linked.
    pub(super) unsafe fn inherit(&mut self, peer: NonNull<ngx_http_upstream_rr_peer_t>) {
        if let Some(new) = self.peer {
            // SAFETY: see above; the new peer is this value's own until it is linked.
            unsafe { sessions::inherit(peer.as_ptr(), new.as_ptr()) };
        }
    }

    /// Hands the peer over to the list that it is linked in: the one that the server had before, if there is one, as the
    /// new one is. Its old text and its TLS session go with this value.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held; the peer that the server had before was found under them, and is in no
    /// list any more.
    pub(super) unsafe fn take(&mut self) -> Option<NonNull<ngx_http_upstream_rr_peer_t>> {
        let (Some(own), Some(new)) = (self.seat.take(), self.peer) else { return self.peer.take() };
        let (peer, new) = (own.as_ptr(), new.as_ptr());
        // SAFETY: see above: nobody else reads or writes these words. The text is read under the locks only, and so is the
        // TLS session, which may be another server's by now. The requests that use the peer have their own references.
        unsafe {
            ngx_http_upstream_rr_peer_t::set_zombie_raw(peer, 0);
            (*peer).refs -= 1;
            (*peer).next = ptr::null_mut();
            mem::swap(&mut (*peer).server, &mut (*new).server);
            self.session = nuc_take_session(peer);
            (*peer).weight = (*new).weight;
            (*peer).effective_weight = (*new).effective_weight;
            (*peer).current_weight = 0;
            (*peer).max_conns = (*new).max_conns;
            (*peer).max_fails = (*new).max_fails;
            (*peer).fail_timeout = (*new).fail_timeout;
            (*peer).down = (*new).down;
            (*peer).fails = 0;
            (*peer).accessed = 0;
            (*peer).checked = 0;
        }
        Some(own)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.session.is_null() {
            // SAFETY: a session is a chunk of the zone, and no peer refers to it any more.
            unsafe { ngx_slab_free(self.pool.as_ptr(), self.session.cast()) };
        }
        if let Some(peer) = self.peer.take() {
            // SAFETY: nothing refers to the peer, and the pool lives as long as the zone.
            unsafe { release(self.pool, peer) };
        }
    }
}

/// A list of backups in the zone's memory, linked nowhere. Dropping it gives the memory back.
pub struct PreparedList {
    /// The pool that it came from.
    pool: NonNull<ngx_slab_pool_t>,
    /// The list; none once it is linked.
    list: Option<NonNull<ngx_http_upstream_rr_peers_t>>,
}

impl PreparedList {
    /// Makes a list, unless there is one.
    ///
    /// # Errors
    ///
    /// The zone is full.
    pub(super) fn new(zone: &Zone) -> Result<Option<Self>, Full> {
        let pool = zone.pool().ok_or(Full { needed: 0 })?;
        // SAFETY: the list is mapped; the word is set at most once, under its lock.
        if unsafe { !(&raw const (*zone.primary.as_ptr()).next).read_volatile().is_null() } {
            return Ok(None);
        }
        // SAFETY: the pool is mapped as long as the zone.
        let list = unsafe { calloc(pool, &[size_of::<ngx_http_upstream_rr_peers_t>()]) }?;
        let list = list.first().copied().and_then(|list| NonNull::new(list.cast()));
        Ok(list.map(|list| Self { pool, list: Some(list) }))
    }

    /// Hands the list over.
    pub(super) fn take(&mut self) -> Option<NonNull<ngx_http_upstream_rr_peers_t>> {
        self.list.take()
    }
}

impl Drop for PreparedList {
    fn drop(&mut self) {
        if let Some(list) = self.list.take() {
            // SAFETY: made by `prepare_backups` from this pool, and linked nowhere.
            unsafe { ngx_slab_free(self.pool.as_ptr(), list.as_ptr().cast()) };
        }
    }
}

/// A peer of zeroes with its buffers, and with its text.
///
/// # Safety
///
/// The pool is mapped.
unsafe fn alloc_peer(
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
        sessions::set_buffer(peer.as_ptr(), sid);
        Ok(peer)
    }
}

/// Frees a peer.
///
/// # Safety
///
/// It came from this pool, and nothing refers to it.
pub(super) unsafe fn release(pool: NonNull<ngx_slab_pool_t>, peer: NonNull<ngx_http_upstream_rr_peer_t>) {
    let (pool, peer) = (pool.as_ptr(), peer.as_ptr());
    // SAFETY: nothing refers to the peer; its chunks are the zone's. Which of them nginx filled in depends on how it
    // was built, so each is freed if it is there.
    unsafe {
        let chunks = [
            (*peer).sockaddr.cast(),
            (*peer).name.data,
            (*peer).server.data,
            sessions::buffer(peer),
            nuc_take_session(peer),
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
