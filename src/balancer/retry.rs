//! Another try when the lists of peers changed under a request.
//!
//! Since 1.27.3 a balancer that prepared before a change refuses to choose after it, and nginx answers 502 although
//! servers are there. Before that it goes on, and may choose a server that this request failed on, or none. So the
//! balancer prepares once more. It forgets in doing so which peers this request failed on, and
//! sticky forgets its cookie: both are made up for here.

use std::ptr;

use nginx_sys::{NGX_BUSY, NGX_DONE, NGX_OK, ngx_int_t, ngx_peer_connection_t, socklen_t};

use crate::zone;
use crate::zone::backend::Backend;

use super::connection;
use super::inner::{Inner, within_limit};
use super::ride::{Failed, Ride};

/// Preparations for one choice, at most. Each follows a change that fell between two steps of one worker; a consistent hash
/// over a hundred servers takes milliseconds to prepare, in which more changes may fall.
const PREPARATIONS: usize = 64;

/// Peers given back for one choice, at most.
const GIVEN_BACK: usize = 64;

/// Whether the balancer refused only because the lists changed, or because it takes a peer for tried that was not.
///
/// # Safety
///
/// The ride is that of a living request.
#[inline]
pub(super) unsafe fn is_due(ride: &Ride, rc: ngx_int_t) -> bool {
    // SAFETY: see above.
    rc == NGX_BUSY as ngx_int_t && (ride.one_more || unsafe { membership(ride) } != ride.membership)
}

/// Whether the balancer prepared before the lists changed and would choose once more all the same, taking places in the
/// lists for those of the peers that this request failed on. Before its first choice it takes them for nothing.
///
/// # Safety
///
/// The ride is that of a living request.
#[inline]
pub(super) unsafe fn is_old(ride: &Ride) -> bool {
    // SAFETY: see above.
    !zone::Current::REFUSES_OLD && ride.attempts > 0 && unsafe { membership(ride) } != ride.membership
}

/// After a failure: another try, if it was the last, the lists changed since the request began, and there is a server
/// that it did not fail on.
///
/// # Safety
///
/// `pc` is the connection that the ride belongs to, and has just given back its peer.
pub(super) unsafe fn allow_another(ride: &Ride, pc: *mut ngx_peer_connection_t) {
    // SAFETY: see above.
    unsafe {
        let changed = ride.prepared_again || membership(ride) != ride.membership;
        if (*pc).tries == 0 && changed && untried(ride) > 0 {
            (*pc).tries = within_limit(ride.r, ride.attempts, 1);
        }
    }
}

/// How many servers there are that the request may try and did not fail on.
unsafe fn untried(ride: &Ride) -> usize {
    // SAFETY: the hook lives as long as the configuration.
    let control = unsafe { ride.hook.as_ref() }.upstream().control();
    // SAFETY: the list of those that failed lies in the pool of the request.
    let is_new = |address: &[u8]| unsafe {
        !Failed::among(ride.failed, address.as_ptr().cast(), address.len() as socklen_t)
    };
    control.map_or(0, |control| control.zone.count_usable(is_new))
}

/// nginx's count of changes to the lists, now.
unsafe fn membership(ride: &Ride) -> u64 {
    // SAFETY: the hook lives as long as the configuration.
    let control = unsafe { ride.hook.as_ref() }.upstream().control();
    control.map_or(0, |control| control.zone.membership())
}

/// Lets the balancer prepare again, and choose.
///
/// # Safety
///
/// `pc` is the connection that the ride belongs to; nginx holds no peer for it, and the balancer's answer was `rc`.
pub(super) unsafe fn run(ride: &mut Ride, pc: *mut ngx_peer_connection_t, mut rc: ngx_int_t) -> ngx_int_t {
    // SAFETY: see above.
    unsafe {
        for _ in 0..PREPARATIONS {
            let now = membership(ride);
            if rc != NGX_BUSY as ngx_int_t || (now == ride.membership && !ride.one_more) {
                break;
            }
            ride.one_more = false;
            ride.membership = now;
            if prepare(ride, pc).is_none() {
                break;
            }
            rc = choose(ride, pc);
        }
    }
    rc
}

/// Lets the balancer prepare again. None if it could not; then it is as it was.
unsafe fn prepare(ride: &mut Ride, pc: *mut ngx_peer_connection_t) -> Option<()> {
    // SAFETY: the request lives.
    let upstream = unsafe { (*ride.r).upstream };
    // SAFETY: as above.
    if upstream.is_null() || !unsafe { ptr::eq(&raw const (*upstream).peer, pc) } {
        return None;
    }
    // SAFETY: as above. `pc` lies in the request's upstream, where nginx's balancers take data that is there for their
    // own.
    let (rc, inner) = unsafe {
        ride.cookies.withdraw();
        let saved = pc.read();
        (*pc).data = ptr::null_mut();
        let rc = ride.hook.as_ref().prepare(ride.r, ride.us);
        let inner = Inner::of(&*pc);
        pc.write(saved);
        (rc, inner)
    };
    if rc != NGX_OK as ngx_int_t {
        return None;
    }
    ride.head.inner = inner;
    ride.prepared_again = true;
    // SAFETY: as above.
    unsafe {
        // There may be more servers than when the request began, all of which it may try that it did not fail on.
        (*pc).tries = within_limit(ride.r, ride.attempts, (*pc).tries.max(untried(ride)));
        ngx::ngx_log_debug!(
            mask: ngx::log::DebugMask::Http,
            (*pc).log,
            "upstream control: peers changed, balancer prepared again"
        );
    }
    Some(())
}

/// Lets the balancer choose among the peers that this request did not fail on.
///
/// # Safety
///
/// `pc` is the connection that the ride belongs to; nginx holds no peer for it.
pub(super) unsafe fn choose(ride: &Ride, pc: *mut ngx_peer_connection_t) -> ngx_int_t {
    let Some((get, free)) = ride.head.inner.get.zip(ride.head.inner.free) else {
        return NGX_BUSY as ngx_int_t;
    };
    // SAFETY: the functions are the balancer's own, with its own data. What get gave is given back once before get is
    // called again, as nginx itself does.
    unsafe {
        let mut rc = get(pc, ride.head.inner.data);
        for _ in 0..GIVEN_BACK {
            let given = rc == NGX_OK as ngx_int_t || rc == NGX_DONE as ngx_int_t;
            if !given || !Failed::has(ride.failed, pc) {
                break;
            }
            let tries = (*pc).tries;
            free(pc, ride.head.inner.data, 0);
            (*pc).tries = tries;
            (*pc).sockaddr = ptr::null_mut();
            // An open connection that came with the peer, unless keepalive has taken it back.
            connection::close((*pc).connection);
            (*pc).connection = ptr::null_mut();
            (*pc).set_cached(0);
            rc = get(pc, ride.head.inner.data);
        }
        rc
    }
}
