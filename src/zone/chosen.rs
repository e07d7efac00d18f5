//! A peer that a balancer chose for a request.

use std::mem::offset_of;
use std::ptr::NonNull;

use nginx_sys::ngx_peer_connection_t;

use super::backend::Backend;
use super::current::Current;
use super::handle::Zone;
use super::nginx_peers::RawPeer;

/// A peer that a balancer chose for a request, while the request holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen(NonNull<RawPeer>);

impl Chosen {
    /// Whether what nginx notes of a peer for the log may be another's by then.
    pub const NAMES_CHANGE: bool = Current::NAMES_CHANGE;

    /// The peer that `pc` was given; none if it was given none of a list's.
    ///
    /// # Safety
    ///
    /// One of nginx's balancers has just given `pc` a peer, so that `pc->name` is the `name` of that peer.
    pub unsafe fn of(pc: &ngx_peer_connection_t) -> Option<Self> {
        let name = NonNull::new(pc.name)?;
        // SAFETY: see above: the name lies in the peer, which is not freed while the request holds it.
        unsafe {
            let peer = name.byte_sub(offset_of!(RawPeer, name)).cast();
            let peer: NonNull<RawPeer> = peer;
            ((*peer.as_ptr()).sockaddr == pc.sockaddr).then_some(Self(peer))
        }
    }

    /// Whether the peer left its list since it was chosen.
    ///
    /// # Safety
    ///
    /// The request still holds the peer, which is one of the zone's.
    pub unsafe fn has_left(self, zone: &Zone) -> bool {
        // SAFETY: see above.
        unsafe { Current::has_left(zone, self.0) }
    }
}
