//! How an upstream is hooked, and where nginx enters the hook.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::{NGX_ERROR, NGX_OK, ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_int_t};

use crate::live::Upstream;
use crate::nginx::conf;
use crate::zone;

use super::guarded;
use super::hook::Hook;
use super::request;
use super::seat::Seat;

impl Hook {
    /// Hooks an upstream.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`, once for an upstream, whose settings of this module begin with a [`Seat`].
    pub unsafe fn install(upstream: &Rc<Upstream>, tables: Option<zone::Tables>) -> Option<Rc<Self>> {
        let us = upstream.conf.as_ptr();
        // SAFETY: see above; `peer.init` was set when the balancer was set up, before `postconfiguration`.
        unsafe {
            let mut seat = conf::srv_conf_in::<Seat>((*us).srv_conf)?;
            let hook = Rc::new(Self::new((*us).peer.init?, Rc::clone(upstream), tables));
            seat.as_mut().hook = Some(Rc::clone(&hook));
            (*us).peer.init = Some(ngx_http_upstream_control_init_peer);
            Some(hook)
        }
    }

    /// The hook of an upstream.
    ///
    /// # Safety
    ///
    /// `us` is an upstream of the running configuration.
    unsafe fn of<'a>(us: *mut ngx_http_upstream_srv_conf_t) -> Option<&'a Self> {
        // SAFETY: the settings of this module begin with a seat, and hold the hook as long as the configuration
        // lives.
        unsafe { conf::srv_conf_in::<Seat>((*us).srv_conf)?.as_ref().hook.as_deref() }
    }
}

/// nginx's entry: a request is about to be given to the upstream.
unsafe extern "C" fn ngx_http_upstream_control_init_peer(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    // SAFETY: nginx calls this in a worker, with a request that has an upstream, and the upstream that was hooked.
    guarded(NGX_ERROR as ngx_int_t, || unsafe { init(r, us) })
}

/// Lets the balancer prepare, and rides along.
///
/// # Safety
///
/// See [`ngx_http_upstream_control_init_peer`].
unsafe fn init(r: *mut ngx_http_request_t, us: *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t {
    // SAFETY: see above.
    let Some(hook) = (unsafe { Hook::of(us) }) else {
        return NGX_ERROR as ngx_int_t;
    };
    hook.keep_up();
    let control = hook.upstream().control();
    // Asked before the balancer asks, so that a change in between is seen as one.
    let membership = control.map_or(0, |control| control.zone.membership());
    // SAFETY: see above.
    let rc = unsafe { hook.prepare(r, us) };
    if control.is_some() && rc == NGX_OK as ngx_int_t {
        // SAFETY: see above; the balancer has prepared the request's connection to a peer.
        unsafe { request::ride(r, us, NonNull::from(hook), membership) };
    }
    rc
}
