//! A new peer, or a list of backups, in the zone's memory.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use nginx_sys::{
    ngx_shmtx_lock, ngx_shmtx_unlock, ngx_slab_free, ngx_slab_free_locked, ngx_slab_pool_t, ngx_sock_ntop,
    ngx_sockaddr_t,
};

use crate::model::server::Server;

use super::super::extra::hash;
use super::super::handle::Zone;
use super::super::lock::Writing;
use super::super::nginx_peers::{RawPeer, RawPeers};
use super::super::peers::{Peer, PeerMut};
use super::super::place::Place;
use super::super::prepared::{Full, calloc, name_size, nuc_take_session, write_address};
use super::super::setting::Abilities;
use super::sessions::{self, SID_LEN};

/// A peer in the zone's memory, linked in no list. Dropping it gives the memory back.
pub struct Prepared {
    /// The pool that it came from.
    pool: NonNull<ngx_slab_pool_t>,
    /// The peer; none once it is linked.
    peer: Option<NonNull<RawPeer>>,
    /// The peer that the server had before, and that is linked in the place of the new one: requests still use it.
    pub(super) seat: Cell<Option<NonNull<RawPeer>>>,
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
        let raw = unsafe { alloc_peer(pool, new.text.as_bytes(), abilities.drains)? };
        // SAFETY: the peer was made above, with buffers of the sizes that are written, and nobody else knows it.
        let peer = unsafe {
            let peer = raw.as_ptr();
            (*peer).socklen = write_address((*peer).sockaddr.cast(), &new.address);
            let (name, size) = ((*peer).name.data, name_size());
            (*peer).name.len = ngx_sock_ntop((*peer).sockaddr, (*peer).socklen, name, size, 1);
            sessions::name(peer, abilities.drains);
            PeerMut::new(raw)
        };
        let weight = isize::try_from(new.terms.params.weight).unwrap_or(isize::MAX);
        peer.set_weight(weight);
        peer.set_effective_weight(weight);
        peer.set_max_conns(new.terms.params.max_conns as usize);
        peer.set_max_fails(new.terms.params.max_fails as usize);
        peer.set_fail_timeout(new.terms.params.fail_timeout as _);
        peer.set_down(abilities.down(new.terms.admin));
        Ok(Self { pool, peer: Some(raw), seat: Cell::new(None), session: ptr::null_mut() })
    }

    /// The peer, as long as it is in no list.
    fn peer(&self) -> Option<Peer<'_>> {
        // SAFETY: the peer is this value's own until it is linked.
        self.peer.map(|peer| unsafe { Peer::new(peer) })
    }

    /// Its address, as nginx writes it.
    pub(super) fn name(&self) -> Vec<u8> {
        self.peer().map_or_else(Vec::new, |peer| peer.name().to_vec())
    }

    /// What finds the server among those that left.
    pub(super) fn key(&self) -> Option<u64> {
        self.peer().map(|peer| hash(peer.address()))
    }

    /// The peer that is about to be linked; none once it is.
    pub(super) fn place(&self) -> Option<Place> {
        self.seat.get().or(self.peer).map(Place)
    }

    /// Whether a peer that left was this server's, in the place of `before` if it is to have that. What a request may look
    /// at without a lock stays as it is: the address, the name, and what sticky sessions know the peer by.
    pub(super) fn had(&self, peer: Peer<'_>, before: Option<Peer<'_>>) -> bool {
        self.peer()
            .is_some_and(|new| peer.address() == new.address() && sessions::are_same(peer, new, before))
    }

    /// Takes over what sticky sessions know a peer by, if the configuration gave it a name for them.
    pub(super) fn inherit(&mut self, peer: PeerMut<'_>) {
        if let Some(new) = self.peer {
            // SAFETY: the lock of `peer` is held, and the new peer is this value's own until it is linked.
            unsafe { sessions::inherit(peer.raw().as_ptr(), new.as_ptr()) };
        }
    }

    /// Hands the peer over to the list that it is linked in: the one that the server had before, if there is one, as the
    /// new one is. Its old text and its TLS session go with this value.
    ///
    /// # Safety
    ///
    /// The peer that the server had before was found under these locks, and is in no list any more.
    pub(super) unsafe fn take<'a>(&mut self, _lists: &'a Writing) -> Option<PeerMut<'a>> {
        let seat = self.seat.take().zip(self.peer);
        let Some((own, new)) = seat else {
            // SAFETY: nobody else knows the peer before it is linked.
            return self.peer.take().map(|peer| unsafe { PeerMut::new(peer) });
        };
        let (raw, spare) = (own.as_ptr(), new.as_ptr());
        // SAFETY: see above: nobody else reads or writes these words. The text is read under the locks only, and so is the
        // TLS session, which may be another server's by now. The requests that use the peer have their own references.
        let (peer, new) = unsafe {
            RawPeer::set_zombie_raw(raw, 0);
            (*raw).refs -= 1;
            (*raw).next = ptr::null_mut();
            ptr::swap(&raw mut (*raw).server, &raw mut (*spare).server);
            self.session = nuc_take_session(raw);
            (PeerMut::new(own), Peer::new(new))
        };
        peer.set_weight(new.weight());
        peer.set_effective_weight(new.effective_weight());
        peer.set_current_weight(0);
        peer.set_max_conns(new.max_conns());
        peer.set_max_fails(new.max_fails());
        peer.set_fail_timeout(new.fail_timeout());
        peer.set_down(new.down());
        peer.set_fails(0);
        peer.set_accessed(0);
        peer.set_checked(0);
        Some(peer)
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
    list: Option<NonNull<RawPeers>>,
}

impl PreparedList {
    /// Makes a list, unless there is one.
    ///
    /// # Errors
    ///
    /// The zone is full.
    pub(super) fn new(zone: &Zone) -> Result<Option<Self>, Full> {
        let pool = zone.pool().ok_or(Full { needed: 0 })?;
        if zone.primary().backups().is_some() {
            return Ok(None);
        }
        // SAFETY: the pool is mapped as long as the zone.
        let list = unsafe { calloc(pool, &[size_of::<RawPeers>()]) }?;
        let list = list.first().copied().and_then(|list| NonNull::new(list.cast()));
        Ok(list.map(|list| Self { pool, list: Some(list) }))
    }

    /// Hands the list over.
    pub(super) fn take(&mut self) -> Option<NonNull<RawPeers>> {
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
) -> Result<NonNull<RawPeer>, Full> {
    // The chunks that nginx itself allocates for a peer, and frees when the last request is done with it.
    let sizes = [
        size_of::<RawPeer>(),
        size_of::<ngx_sockaddr_t>(),
        name_size(),
        server.len().max(1),
        if sessions { SID_LEN } else { 0 },
    ];
    // SAFETY: the chunks have these sizes, and nobody else knows them.
    unsafe {
        let [peer, address, name, text, sid] = calloc(pool, &sizes)?;
        let peer = NonNull::new(peer.cast::<RawPeer>()).ok_or(Full { needed: 0 })?;
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
pub(super) unsafe fn release(pool: NonNull<ngx_slab_pool_t>, peer: NonNull<RawPeer>) {
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
