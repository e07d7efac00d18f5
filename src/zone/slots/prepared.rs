//! A server that is to come into a slot: all that is written there, so that under the locks nothing is left but to write.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::slice;

use nginx_sys::{ngx_slab_free, ngx_slab_pool_t, ngx_sock_ntop, ngx_sockaddr_t, socklen_t, time_t};

use crate::model::params::Params;
use crate::model::server::Server;

use super::super::capacity::room::TEXT_SIZE;
use super::super::handle::Zone;
use super::super::nginx_peers::RawPeer;
use super::super::peers::{Peer, PeerMut};
use super::super::prepared::{Full, name_size, nuc_take_session, write_address};
use super::super::setting::Abilities;
use super::blanks::Own;

/// A server in no slot yet.
pub struct Prepared {
    /// Its address.
    address: ngx_sockaddr_t,
    /// Length of the address.
    socklen: socklen_t,
    /// The address as nginx writes it.
    pub(super) name: Vec<u8>,
    /// Text of the server.
    server: Vec<u8>,
    /// weight, max_conns, max_fails, fail_timeout.
    params: Params,
    /// nginx's `down` word.
    down: usize,
    /// Whether each slot has room for its text.
    has_room: bool,
    /// The slot that was found for it.
    pub(super) seat: Cell<Option<NonNull<RawPeer>>>,
    /// The slot of the server whose place in the list it takes.
    pub(super) heir_of: Option<NonNull<RawPeer>>,
    /// The TLS session of the server that was in the slot before: given back when the locks are.
    session: *mut u8,
    /// The pool that the session came from.
    pool: NonNull<ngx_slab_pool_t>,
}

impl Prepared {
    /// Writes down all that a slot is to have.
    ///
    /// # Errors
    ///
    /// The text is longer than what slots have room for.
    pub(super) fn new(zone: &Zone, new: &Server, abilities: Abilities) -> Result<Self, Full> {
        let pool = zone.pool().ok_or(Full { needed: 0 })?;
        if new.text.len() > TEXT_SIZE {
            return Err(Full { needed: new.text.len() });
        }
        let mut name = vec![0; name_size()];
        // SAFETY: zeroes are an address of nginx's union; nginx writes a name of at most the size that it is told.
        let (address, socklen, len) = unsafe {
            let mut address: ngx_sockaddr_t = std::mem::zeroed();
            let socklen = write_address(&raw mut address, &new.address);
            let sockaddr = (&raw mut address).cast();
            (address, socklen, ngx_sock_ntop(sockaddr, socklen, name.as_mut_ptr(), name.len(), 1))
        };
        name.truncate(len);
        Ok(Self {
            address,
            socklen,
            name,
            server: new.text.clone().into(),
            params: new.terms.params,
            down: abilities.down(new.terms.admin),
            has_room: Own::of(zone).is_some_and(|own| !own.is_narrow()),
            seat: Cell::new(None),
            heir_of: None,
            session: ptr::null_mut(),
            pool,
        })
    }

    /// Whether this is the server that is or was in a slot, whatever its text was.
    pub(super) fn was_in(&self, slot: Peer<'_>) -> bool {
        // SAFETY: an address is as long as its `socklen` says.
        let address =
            unsafe { slice::from_raw_parts((&raw const self.address).cast::<u8>(), self.socklen as usize) };
        slot.address() == address && (self.has_room || slot.server() == self.server)
    }

    /// Comes into the slot that was found for it.
    ///
    /// # Safety
    ///
    /// No request uses the slot, or it was this very server's.
    pub(super) unsafe fn fill(&mut self, slot: PeerMut<'_>) {
        // SAFETY: see above.
        unsafe { self.write_texts(slot) };
        let weight = isize::try_from(self.params.weight).unwrap_or(isize::MAX);
        slot.set_weight(weight);
        slot.set_effective_weight(weight);
        slot.set_current_weight(0);
        slot.set_max_conns(self.params.max_conns as usize);
        slot.set_max_fails(self.params.max_fails as usize);
        slot.set_fail_timeout(time_t::try_from(self.params.fail_timeout).unwrap_or(time_t::MAX));
        slot.set_fails(0);
        slot.set_accessed(0);
        slot.set_checked(0);
        slot.set_down(self.down);
        // SAFETY: the write lock is held, which guards the session.
        self.session = unsafe { nuc_take_session(slot.raw().as_ptr()) };
    }

    /// Writes the address, the name and the text of the server, of which nobody has a reference.
    ///
    /// # Safety
    ///
    /// See [`Self::fill`].
    unsafe fn write_texts(&self, slot: PeerMut<'_>) {
        let is_idle = slot.conns() == 0;
        let slot = slot.raw().as_ptr();
        // SAFETY: see above. The buffers of a slot are nginx's: an address of any kind, a name of nginx's longest, and a
        // text of `TEXT_SIZE`, or the slot has this text already. Requests look at the text under the locks only.
        unsafe {
            if is_idle {
                (*slot).sockaddr.cast::<ngx_sockaddr_t>().write(self.address);
                (*slot).socklen = self.socklen;
                (*slot).name.data.copy_from_nonoverlapping(self.name.as_ptr(), self.name.len());
                (*slot).name.len = self.name.len();
            }
            (*slot).server.data.copy_from_nonoverlapping(self.server.as_ptr(), self.server.len());
            (*slot).server.len = self.server.len();
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.session.is_null() {
            // SAFETY: a session is a chunk of the zone, and the slot does not refer to it any more.
            unsafe { ngx_slab_free(self.pool.as_ptr(), self.session.cast()) };
        }
    }
}
