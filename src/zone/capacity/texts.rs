//! Room for the texts of servers: taken at the start, so that nothing is allocated when a server comes into a slot.

use std::ptr::NonNull;

use nginx_sys::{ngx_slab_free, ngx_slab_pool_t};

use crate::zone::handle::Zone;
use crate::zone::nginx_peers::RawPeer;
use crate::zone::peers::Peer;
use crate::zone::prepared::calloc;

use super::room::{TEXT_SIZE, is_roomy};

/// Makes the peers of a zone ready to change: the text of each server can be replaced by any of [`TEXT_SIZE`] bytes. False
/// if the zone has not enough memory: then some texts have room and others do not, and no server may take the place of
/// another.
///
/// # Safety
///
/// Called by the master in `init_module`, once for an upstream: the zone is mapped, and no process uses it yet.
pub unsafe fn ready(zone: &Zone) -> bool {
    let Some(pool) = zone.pool() else { return false };
    let Some(lists) = zone.write() else { return false };
    // SAFETY: see above.
    let exchange = |peer: Peer<'_>| unsafe { exchange(pool, peer.raw()) };
    lists.iter().flat_map(|(_, list)| lists.peers(list)).all(exchange)
}

/// Gives the text of a peer a chunk of [`TEXT_SIZE`] bytes, unless the one that it has is as large. False if there is
/// none.
///
/// # Safety
///
/// See [`ready`]; the pool is that of the peer.
unsafe fn exchange(pool: NonNull<ngx_slab_pool_t>, peer: NonNull<RawPeer>) -> bool {
    // SAFETY: see above. The old chunk is the peer's own: nginx copied the text for each peer.
    unsafe {
        let text = &raw mut (*peer.as_ptr()).server;
        if is_roomy((*text).len) {
            return true;
        }
        let Ok([chunk]) = calloc(pool, &[TEXT_SIZE]) else { return false };
        chunk.copy_from_nonoverlapping((*text).data, (*text).len);
        let old = std::mem::replace(&mut (*text).data, chunk);
        ngx_slab_free(pool.as_ptr(), old.cast());
    }
    true
}
