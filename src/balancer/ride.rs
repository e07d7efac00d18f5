//! What rides on one request, and what it remembers.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_palloc, ngx_peer_connection_t, ngx_sockaddr_t,
    sockaddr, socklen_t,
};

use crate::model::departures::Departures;
use crate::zone::Chosen;

use super::cookies::Cookies;
use super::hook::Hook;
use super::inner::Head;

/// What rides on one request, in the request's pool.
#[repr(C)]
pub(super) struct Ride {
    /// The balancer; first, see [`Head`].
    pub head: Head,
    /// The request.
    pub r: *mut ngx_http_request_t,
    /// The upstream.
    pub us: *mut ngx_http_upstream_srv_conf_t,
    /// The hook.
    pub hook: NonNull<Hook>,
    /// nginx's count of changes to the lists when the balancer prepared.
    pub membership: u64,
    /// Peers that the request was given so far.
    pub attempts: usize,
    /// Whether the balancer prepared again since.
    pub prepared_again: bool,
    /// Whether a peer is worth another try that the balancer takes for tried: see [`Ride::was_idle_too_long`].
    pub one_more: bool,
    /// The peer that the request holds.
    pub peer: Option<Chosen>,
    /// How many peers had left before it was chosen.
    pub departures: Departures,
    /// Peers that this request failed on.
    pub failed: *mut Failed,
    /// Where the cookies of sticky begin.
    pub cookies: Cookies,
}

/// An address that a request failed on: a list in the request's pool.
pub(super) struct Failed {
    /// The one before.
    next: *mut Failed,
    /// The address.
    address: ngx_sockaddr_t,
    /// Its length.
    len: socklen_t,
}

impl Failed {
    /// Notes the peer that the request holds. Without memory it is not noted.
    ///
    /// # Safety
    ///
    /// `pc` holds a peer.
    pub unsafe fn remember(ride: &mut Ride, pc: *const ngx_peer_connection_t) {
        // SAFETY: see above; an address of nginx's fits its own union.
        unsafe {
            let len = (*pc).socklen;
            if (*pc).sockaddr.is_null() || len as usize > size_of::<ngx_sockaddr_t>() {
                return;
            }
            let failed = ngx_palloc((*ride.r).pool, size_of::<Self>()).cast::<Self>();
            if failed.is_null() {
                return;
            }
            (&raw mut (*failed).next).write(ride.failed);
            (&raw mut (*failed).len).write(len);
            (&raw mut (*failed).address)
                .cast::<u8>()
                .copy_from_nonoverlapping((*pc).sockaddr.cast(), len as usize);
            ride.failed = failed;
        }
    }

    /// Whether the peer that `pc` holds was noted.
    pub unsafe fn has(failed: *const Self, pc: *const ngx_peer_connection_t) -> bool {
        // SAFETY: `pc` holds a peer.
        unsafe { Self::among(failed, (*pc).sockaddr, (*pc).socklen) }
    }

    /// Whether an address was noted.
    pub unsafe fn among(mut failed: *const Self, address: *const sockaddr, len: socklen_t) -> bool {
        // SAFETY: the list lies in the request's pool, and the address is `len` bytes long.
        unsafe {
            while let Some(entry) = failed.as_ref() {
                let noted: *const sockaddr = (&raw const entry.address).cast();
                if entry.len == len && libc::memcmp(noted.cast(), address.cast(), len as usize) == 0 {
                    return true;
                }
                failed = entry.next;
            }
        }
        false
    }
}
