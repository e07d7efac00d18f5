//! What rides on a request from the moment that its balancer is ready: every call to the balancer passes here.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_BUSY, NGX_DONE, NGX_ERROR, NGX_OK, NGX_PEER_FAILED, NGX_PEER_NEXT, ngx_http_request_t,
    ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_palloc, ngx_peer_connection_t, ngx_uint_t,
};

use crate::model::departures::Departures;
use crate::zone::extra::socket_hash;
use crate::zone::{Chosen, Extra};

use super::cookies::Cookies;
use super::guarded;
use super::hook::Hook;
use super::inner::{GetPeer, Head, Inner, keep_name};
use super::retry;
use super::ride::{Failed, Ride};

/// Puts this module between nginx and a balancer that is ready. Without memory the request goes on without.
///
/// # Safety
///
/// The request has an upstream, whose balancer has just prepared.
pub(super) unsafe fn ride(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
    hook: NonNull<Hook>,
    membership: u64,
) {
    // SAFETY: the request and its upstream live until the request's pool is destroyed, which is where the ride lies.
    let (place, inner, cookies) = unsafe {
        let place = ngx_palloc((*r).pool, size_of::<Ride>()).cast::<Ride>();
        (place, Inner::of(&(*(*r).upstream).peer), Cookies::from_here(r))
    };
    if place.is_null() {
        return;
    }
    let ride = Ride {
        head: Head::new(inner),
        r,
        us,
        hook,
        membership,
        attempts: 0,
        prepared_again: false,
        one_more: false,
        peer: None,
        departures: Departures::default(),
        failed: ptr::null_mut(),
        cookies,
    };
    // SAFETY: as above; the place is as large as a ride.
    unsafe {
        place.write(ride);
        inner.cover(&mut (*(*r).upstream).peer, place.cast(), Some(get_peer), Some(free_peer));
    }
}

impl Ride {
    /// Lets the balancer choose a peer, and notes it.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to; nginx holds no peer for it.
    unsafe fn get(&mut self, pc: *mut ngx_peer_connection_t) -> ngx_int_t {
        // SAFETY: the hook lives as long as the configuration.
        let hook = unsafe { self.hook.as_ref() };
        let Some(control) = hook.upstream().control() else { return NGX_ERROR as ngx_int_t };
        // Since it was prepared the request may have waited for long.
        hook.keep_up();
        self.departures = control.extra().departures();
        hook.idle().look(control.extra());
        // SAFETY: the duty of the caller.
        let rc = unsafe {
            let rc = self.choose(pc);
            hook.idle().check(control.extra(), pc, rc)
        };
        if rc == NGX_OK as ngx_int_t || rc == NGX_DONE as ngx_int_t {
            // SAFETY: as above; `pc` holds a peer now.
            unsafe { self.note(pc) };
        }
        rc
    }

    /// Lets the balancer choose, and prepare once more if the lists changed under it.
    ///
    /// # Safety
    ///
    /// See [`Ride::get`].
    unsafe fn choose(&mut self, pc: *mut ngx_peer_connection_t) -> ngx_int_t {
        let Some(get) = self.head.inner.get else { return NGX_ERROR as ngx_int_t };
        // SAFETY: the duty of the caller; the function is the balancer's own, with its own data.
        unsafe {
            let rc = if retry::is_old(self) {
                NGX_BUSY as ngx_int_t
            } else if self.prepared_again {
                // The balancer has forgotten which peers this request failed on.
                retry::choose(self, pc)
            } else {
                get(pc, self.head.inner.data)
            };
            if retry::is_due(self, rc) { retry::run(self, pc, rc) } else { rc }
        }
    }

    /// Notes the peer that was chosen.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to, and holds a peer.
    unsafe fn note(&mut self, pc: *mut ngx_peer_connection_t) {
        self.attempts += 1;
        // SAFETY: the duty of the caller.
        unsafe {
            self.peer = Chosen::of(&*pc);
            if Chosen::NAMES_CHANGE {
                keep_name(self.r, pc);
            }
            ngx::ngx_log_debug!(
                mask: ngx::log::DebugMask::Http,
                (*pc).log,
                "upstream control: peer {:?}, tries {}",
                self.peer,
                (*pc).tries
            );
        }
    }

    /// Gives the peer back to the balancer.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to, and holds a peer.
    unsafe fn free(&mut self, pc: *mut ngx_peer_connection_t, mut state: ngx_uint_t) {
        let failed = state & (NGX_PEER_FAILED | NGX_PEER_NEXT) as ngx_uint_t != 0;
        // SAFETY: the duty of the caller. An old connection that broke before it answered says nothing about the server.
        unsafe {
            if failed && ((*pc).cached() == 0 || self.has_answered()) {
                Failed::remember(self, pc);
            }
            self.head.note(pc);
        }
        // SAFETY: as above.
        let left = unsafe { self.has_left(pc) };
        // SAFETY: as above.
        let was_idle = state & NGX_PEER_FAILED as ngx_uint_t != 0 && unsafe { self.was_idle_too_long(pc) };
        if was_idle {
            state = NGX_PEER_NEXT as ngx_uint_t;
            self.one_more = true;
        }
        if left || was_idle {
            // SAFETY: as above.
            unsafe { self.keep_not(pc) };
        }
        // SAFETY: as above.
        unsafe { self.give_back(pc, state) };
        if failed {
            // SAFETY: as above; the peer was given back.
            unsafe { retry::allow_another(self, pc) };
        }
    }

    /// Whether the server left since it was chosen. It may be back, with this request: but the connection is one of
    /// before.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to, and holds a peer.
    unsafe fn has_left(&mut self, pc: *const ngx_peer_connection_t) -> bool {
        // SAFETY: the hook lives as long as the configuration.
        let control = unsafe { self.hook.as_ref() }.upstream().control();
        let Some((peer, control)) = self.peer.take().zip(control) else { return false };
        // SAFETY: the duty of the caller.
        unsafe { peer.has_left(&control.zone) || has_left_since(self.departures, control.extra(), &*pc) }
    }

    /// Lets the balancer have its peer back, and notes the connection if keepalive took it.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to, and holds a peer.
    unsafe fn give_back(&self, pc: *mut ngx_peer_connection_t, state: ngx_uint_t) {
        // SAFETY: the duty of the caller. The peer may be gone when it has been given back, but not its connection. The
        // function is the balancer's own, with its own data.
        unsafe {
            let (connection, socket) = ((*pc).connection, socket_hash(&*pc));
            if let Some(free) = self.head.inner.free {
                free(pc, self.head.inner.data, state);
            }
            if !connection.is_null() && (*pc).connection.is_null() && (*connection).idle() != 0 {
                self.hook.as_ref().idle().note(connection, socket);
            }
        }
    }

    /// Whether the peer has answered with a status.
    ///
    /// # Safety
    ///
    /// The request lives.
    unsafe fn has_answered(&self) -> bool {
        // SAFETY: see above.
        unsafe { (*self.r).upstream.as_ref().and_then(|upstream| upstream.state.as_ref()) }
            .is_some_and(|state| state.status != 0)
    }

    /// Whether the peer closed an idle connection at the moment that this request was sent over it, and is one of a pool.
    ///
    /// To nginx a lone server has not failed then, and is tried at once over a new connection. In a pool it would be left
    /// alone, and with it the whole pool, because of nothing.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to, and holds a peer.
    unsafe fn was_idle_too_long(&self, pc: *const ngx_peer_connection_t) -> bool {
        // SAFETY: see above; the hook lives as long as the configuration, and a connection has its events.
        unsafe {
            if (*pc).cached() == 0 || !self.hook.as_ref().upstream().is_pool.get() || self.has_answered() {
                return false;
            }
            (*pc).connection.as_ref().is_some_and(|connection| {
                let (read, write) = (&*connection.read, &*connection.write);
                let has_broken = read.eof() != 0 || read.error() != 0 || write.error() != 0;
                has_broken && read.timedout() == 0 && write.timedout() == 0
            })
        }
    }

    /// Keeps keepalive from keeping the connection, since the server has left.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to.
    unsafe fn keep_not(&self, pc: *mut ngx_peer_connection_t) {
        // SAFETY: see above; the request lives.
        unsafe {
            let upstream = (*self.r).upstream;
            if !upstream.is_null() && ptr::eq(&raw const (*upstream).peer, pc) {
                (*upstream).set_keepalive(0);
            }
        }
    }
}

/// Whether the address that a request was given left since a moment.
///
/// # Safety
///
/// `pc` holds a peer.
unsafe fn has_left_since(then: Departures, extra: &Extra, pc: &ngx_peer_connection_t) -> bool {
    // SAFETY: see above.
    extra.departures() != then && unsafe { extra.left_since(then).0.has(pc.sockaddr, pc.socklen) }
}

/// Whether this is the function that a ride of this kind has its data for.
pub(super) fn is_own(get: GetPeer) -> bool {
    ptr::fn_addr_eq(get, get_peer as GetPeer)
}

/// nginx's entry: choose a peer.
unsafe extern "C" fn get_peer(pc: *mut ngx_peer_connection_t, ride: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes the words that `ride` put there; one thread runs a worker.
    guarded(NGX_ERROR as ngx_int_t, || unsafe { (*ride.cast::<Ride>()).get(pc) })
}

/// nginx's entry: give the peer back.
unsafe extern "C" fn free_peer(pc: *mut ngx_peer_connection_t, ride: *mut c_void, state: ngx_uint_t) {
    // SAFETY: likewise; nginx calls this only while it holds a peer.
    guarded((), || unsafe { (*ride.cast::<Ride>()).free(pc, state) });
}
