//! Blank slots: peers without a server, made in the zone of an upstream when it starts.

use std::ptr::{self, NonNull};

use nginx_sys::{ngx_slab_pool_t, ngx_sockaddr_t, sockaddr_in};

use crate::zone::nginx_peers::RawPeer;
use crate::zone::prepared::{calloc, name_size};

use super::room::TEXT_SIZE;

/// Blank slots, each linked to the next.
pub struct Blanks {
    /// The first; null if there is none.
    pub first: *mut RawPeer,
    /// How many there are.
    pub count: usize,
}

/// Makes so many blank slots, or as many as the zone has room for, of the chunks that nginx itself gives to a peer.
///
/// # Safety
///
/// The pool is mapped.
pub unsafe fn make(pool: NonNull<ngx_slab_pool_t>, count: usize) -> Blanks {
    let mut blanks = Blanks { first: ptr::null_mut(), count: 0 };
    let sizes = [size_of::<RawPeer>(), size_of::<ngx_sockaddr_t>(), name_size(), TEXT_SIZE];
    while blanks.count < count {
        // SAFETY: see above. The chunks are zeroes, as long as what they are for, and known to nobody else.
        unsafe {
            let Ok([peer, address, name, text]) = calloc(pool, &sizes) else { break };
            let (peer, address): (*mut RawPeer, *mut ngx_sockaddr_t) = (peer.cast(), address.cast());
            (*address).sockaddr_in.sin_family = libc::AF_INET as _;
            (*peer).sockaddr = address.cast();
            (*peer).socklen = size_of::<sockaddr_in>() as _;
            (*peer).name.data = name;
            (*peer).server.data = text;
            (*peer).down = 1;
            (*peer).next = blanks.first;
            blanks.first = peer;
            blanks.count += 1;
        }
    }
    blanks
}
