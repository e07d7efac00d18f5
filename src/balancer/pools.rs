//! An upstream of pools: its requests are handed to one upstream after the other, as long as one has a peer for them.
//!
//! For nginx it is a balancer like any other. Each pool's own balancer prepares when the request comes to it, and does
//! the rest: this module's hook on the pool, keepalive and sticky are inside. nginx's count of tries is what the present
//! pool has left, and what those have that the request was not handed to yet.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use nginx_sys::{
    NGX_BUSY, NGX_DONE, NGX_ERROR, NGX_OK, ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_int_t,
    ngx_palloc, ngx_peer_connection_t, ngx_uint_t,
};

use crate::live::{Member, Pools, Upstream};
use crate::nginx::{conf, time};
use crate::zone::Chosen;

use super::composed::Composed;
use super::cookies::Cookies;
use super::guarded;
use super::inner::{GetPeer, Head, Inner, keep_name, within_limit};
use super::seat::Seat;

impl Composed {
    /// Hooks an upstream that has pools.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`, once for an upstream, whose settings of this module begin with a [`Seat`].
    pub unsafe fn install(upstream: &Upstream, pools: Rc<Pools>) -> Option<()> {
        let us = upstream.conf.as_ptr();
        // SAFETY: see above.
        unsafe {
            let mut seat = conf::srv_conf_in::<Seat>((*us).srv_conf)?;
            seat.as_mut().composed = Some(Rc::new(Self::new(pools)));
            (*us).peer.init = Some(ngx_http_upstream_control_init_pools);
        }
        Some(())
    }
}

/// What a request to an upstream of pools carries, in the request's pool.
#[repr(C)]
struct Ride {
    /// The balancer of the present pool; first, see [`Head`].
    head: Head,
    /// The request.
    r: *mut ngx_http_request_t,
    /// The upstream of pools.
    us: *mut ngx_http_upstream_srv_conf_t,
    /// Its hook.
    composed: NonNull<Composed>,
    /// The pools that the request was handed to: a bit for each.
    entered: u64,
    /// Tries that the present pool has left.
    own: usize,
    /// Tries that nginx was told of last.
    told: usize,
    /// Peers that the request was given.
    attempts: usize,
    /// Where the cookies of sticky begin.
    cookies: Cookies,
}

/// nginx's entry: a request is about to be given to the upstream.
unsafe extern "C" fn ngx_http_upstream_control_init_pools(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: nginx calls this in a worker, with a request that has an upstream, and the upstream that was hooked.
    let begun = guarded(None, || unsafe { begin(r, us) });
    begun.map_or(NGX_ERROR as ngx_int_t, |()| NGX_OK as ngx_int_t)
}

/// Takes the place of a balancer. None without memory.
///
/// # Safety
///
/// See [`ngx_http_upstream_control_init_pools`].
unsafe fn begin(r: *mut ngx_http_request_t, us: *mut ngx_http_upstream_srv_conf_t) -> Option<()> {
    // SAFETY: the request and its upstream live; the settings of this module begin with a seat, which holds the hook as
    // long as the configuration lives.
    let (composed, place, cookies) = unsafe {
        let seat = conf::srv_conf_in::<Seat>((*us).srv_conf)?.as_ref();
        let place = NonNull::new(ngx_palloc((*r).pool, size_of::<Ride>()).cast::<Ride>())?;
        (NonNull::from(seat.composed.as_deref()?), place, Cookies::from_here(r))
    };
    let head = Head::new(Inner::NONE);
    let ride = Ride { head, r, us, composed, entered: 0, own: 0, told: 1, attempts: 0, cookies };
    // SAFETY: the place is as large as a ride, and in the request's pool, as is the connection to a peer.
    unsafe {
        place.write(ride);
        let pc = &mut (*(*r).upstream).peer;
        Inner::NONE.cover(pc, place.as_ptr().cast(), Some(get_peer), Some(free_peer));
        // More than none: the pools are asked when the first peer is.
        pc.tries = 1;
    }
    Some(())
}

impl Ride {
    /// Lets the pools choose a peer: the present one, and if it has none left the others. `data` is nginx's pointer to
    /// this.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to; nginx holds no peer for it.
    unsafe fn get(&mut self, data: *mut c_void, pc: *mut ngx_peer_connection_t) -> ngx_int_t {
        // SAFETY: the hook lives as long as the configuration.
        let composed = unsafe { self.composed.as_ref() };
        // SAFETY: the duty of the caller.
        let rc = unsafe {
            self.take_tries_back(pc);
            self.find(composed, data, pc)
        };
        if rc == NGX_OK as ngx_int_t || rc == NGX_DONE as ngx_int_t {
            self.attempts += 1;
            // SAFETY: as above; the request has a peer now, which is among the tries.
            unsafe {
                if !Chosen::NAMES_CHANGE {
                    // nginx itself does so for an upstream with a zone, which this one has not.
                    keep_name(self.r, pc);
                }
                self.tell_tries(composed.pools(), pc, self.attempts - 1);
            }
        } else if rc == NGX_BUSY as ngx_int_t {
            self.told = 0;
            // SAFETY: as above. The name is what the log shows where nobody had a peer.
            unsafe {
                (*pc).name = &raw mut (*self.us).host;
                (*pc).tries = 0;
            }
        }
        rc
    }

    /// Asks one pool after the other.
    ///
    /// # Safety
    ///
    /// See [`Ride::get`].
    unsafe fn find(
        &mut self,
        composed: &Composed,
        data: *mut c_void,
        pc: *mut ngx_peer_connection_t,
    ) -> ngx_int_t {
        let pools = composed.pools();
        let (ok, busy) = (NGX_OK as ngx_int_t, NGX_BUSY as ngx_int_t);
        // SAFETY: the duty of the caller, here and below.
        let mut rc = if self.own > 0 { unsafe { self.choose(pc) } } else { busy };
        while rc == busy {
            let Some((next, is_best)) = self.next(pools) else { break };
            // SAFETY: as above.
            rc = unsafe { self.enter(pools, next, data, pc) };
            if rc == ok {
                // SAFETY: as above.
                rc = unsafe { self.choose(pc) };
            }
            if rc == busy || !is_best || pools.active() != Some(next) {
                composed.look_soon();
            }
        }
        rc
    }

    /// Lets the balancer of the present pool choose.
    ///
    /// # Safety
    ///
    /// See [`Ride::get`].
    unsafe fn choose(&mut self, pc: *mut ngx_peer_connection_t) -> ngx_int_t {
        let Inner { get: Some(get), data, .. } = self.head.inner else { return NGX_BUSY as ngx_int_t };
        // SAFETY: see above; the function is the balancer's own, with its own data.
        unsafe {
            (*pc).tries = self.own;
            let rc = get(pc, data);
            // The balancer may have prepared again.
            self.own = (*pc).tries;
            rc
        }
    }

    /// The pool to hand the request to next: the best that it was not handed to yet, but one that waits for its failback
    /// comes after all others. And whether none was passed over for that.
    fn next(&self, pools: &Pools) -> Option<(usize, bool)> {
        let now = time::msec();
        let (best, _) = self.unentered(pools).next()?;
        let (ready, _) = self.unentered(pools).find(|(_, pool)| pool.waits(now).is_none()).unzip();
        let next = ready.unwrap_or(best);
        Some((next, ready == Some(best)))
    }

    /// The pools that the request was not handed to yet.
    fn unentered<'a>(&self, pools: &'a Pools) -> impl Iterator<Item = (usize, &'a Member)> {
        let entered = self.entered;
        pools.members().iter().enumerate().filter(move |(place, _)| entered >> place & 1 == 0)
    }

    /// Hands the request to a pool: lets its balancer prepare.
    ///
    /// # Safety
    ///
    /// See [`Ride::get`].
    unsafe fn enter(
        &mut self,
        pools: &Pools,
        place: usize,
        data: *mut c_void,
        pc: *mut ngx_peer_connection_t,
    ) -> ngx_int_t {
        self.entered |= 1 << place;
        let Some(pool) = pools.members().get(place) else { return NGX_BUSY as ngx_int_t };
        let pool = pool.upstream().conf.as_ptr();
        // SAFETY: the request and the pool live; nothing is done unless its upstream is the one that `pc` lies in.
        let (upstream, init) = unsafe { ((*self.r).upstream, (*pool).peer.init) };
        let Some(init) = init else { return NGX_ERROR as ngx_int_t };
        // SAFETY: as above.
        if upstream.is_null() || !unsafe { ptr::eq(&raw const (*upstream).peer, pc) } {
            return NGX_ERROR as ngx_int_t;
        }
        if self.head.inner.get.is_some() {
            // SAFETY: as above.
            unsafe { self.cookies.withdraw() };
        }
        // SAFETY: as above. nginx's balancers take data that is there for their own, and set only what they have. The
        // function is that of the pool, which nginx would call with these.
        let (covered, rc) = unsafe {
            let covered = Inner::of(&*pc);
            Inner::NONE.put_into(&mut *pc);
            (covered, init(self.r, pool))
        };
        if rc != NGX_OK as ngx_int_t {
            // SAFETY: as above.
            unsafe { covered.put_into(&mut *pc) };
            return rc;
        }
        // SAFETY: as above; `data` is what nginx had for this ride before.
        unsafe {
            self.head.inner = Inner::of(&*pc);
            self.own = (*pc).tries;
            let inner = self.head.inner;
            inner.cover(&mut *pc, data, Some(get_peer), Some(free_peer));
            let (mask, log) = (ngx::log::DebugMask::Http, (*pc).log);
            ngx::ngx_log_debug!(mask: mask, log, "upstream control: pool {place}, tries {}", self.own);
        }
        rc
    }

    /// Gives the peer back to the balancer of the pool that it is from.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to, and holds a peer.
    unsafe fn free(&mut self, pc: *mut ngx_peer_connection_t, state: ngx_uint_t) {
        // SAFETY: see above; the function is the balancer's own, with its own data.
        unsafe {
            self.head.note(pc);
            self.take_tries_back(pc);
            let Inner { free: Some(free), data, .. } = self.head.inner else { return };
            (*pc).tries = self.own;
            free(pc, data, state);
            self.own = (*pc).tries;
            let composed = self.composed;
            self.tell_tries(composed.as_ref().pools(), pc, self.attempts);
        }
    }

    /// Tells nginx how many tries there are, after so many: of the present pool, and of those that the request was not
    /// handed to.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to.
    unsafe fn tell_tries(&mut self, pools: &Pools, pc: *mut ngx_peer_connection_t, used: usize) {
        let others = self.unentered(pools).fold(0_usize, |sum, (_, pool)| sum.saturating_add(pool.tries()));
        // SAFETY: see above.
        unsafe {
            self.told = within_limit(self.r, used, self.own.saturating_add(others));
            (*pc).tries = self.told;
        }
    }

    /// Takes up a try that nginx gave: it does when an old connection was closed before it served for anything.
    ///
    /// # Safety
    ///
    /// `pc` is the connection that this ride belongs to.
    unsafe fn take_tries_back(&mut self, pc: *const ngx_peer_connection_t) {
        // SAFETY: see above.
        let given = unsafe { (*pc).tries }.saturating_sub(self.told);
        if self.head.inner.get.is_some() {
            self.own = self.own.saturating_add(given);
            self.attempts = self.attempts.saturating_sub(given);
        }
    }
}

/// Whether this is the function that a ride of this kind has its data for.
pub(super) fn is_own(get: GetPeer) -> bool {
    ptr::fn_addr_eq(get, get_peer as GetPeer)
}

/// nginx's entry: choose a peer.
unsafe extern "C" fn get_peer(pc: *mut ngx_peer_connection_t, ride: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes the words that `begin` put there; one thread runs a worker.
    guarded(NGX_ERROR as ngx_int_t, || unsafe { (*ride.cast::<Ride>()).get(ride, pc) })
}

/// nginx's entry: give the peer back.
unsafe extern "C" fn free_peer(pc: *mut ngx_peer_connection_t, ride: *mut c_void, state: ngx_uint_t) {
    // SAFETY: likewise; nginx calls this only while it holds a peer.
    guarded((), || unsafe { (*ride.cast::<Ride>()).free(pc, state) });
}
