//! How an upstream is hooked, and where nginx enters the hook.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;

use nginx_sys::{
    NGX_ERROR, NGX_OK, ngx_conf_t, ngx_http_request_t, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_srv_conf_t, ngx_int_t,
};

use crate::live::Upstream;
use crate::nginx::conf;
use crate::nginx::event::Event;
use crate::zone;
use crate::zone::backend::Backend;

use super::guarded;
use super::hook::{Hook, catch_up_later, look_later};
use super::idle::Idle;
use super::request;
use super::seat::Seat;

impl Hook {
    /// Hooks an upstream.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`, once for an upstream, whose settings of this module begin with a [`Seat`].
    /// `upstream` lives in the pool of the configuration.
    pub unsafe fn install(
        cf: NonNull<ngx_conf_t>,
        upstream: &Upstream,
        tables: Option<zone::Tables>,
    ) -> Option<()> {
        let us = upstream.conf.as_ptr();
        let with = NonNull::from(upstream);
        // SAFETY: see above; `peer.init` was set when the balancer was set up, before `postconfiguration`.
        unsafe {
            let mut seat = conf::srv_conf_in::<Seat>((*us).srv_conf)?;
            let original = (*us).peer.init?;
            let catching_up = UnsafeCell::new(Event::new(catch_up_later, with.as_ptr().cast()));
            // The second event is told of the hook, which has its address only now.
            let looking = UnsafeCell::new(Event::new(look_later, std::ptr::null_mut()));
            let shown = Cell::new(tables.as_ref().and_then(zone::Current::shown));
            let idle = Idle::default();
            let hook = Self { original, upstream: with, catching_up, idle, looking, tables, shown };
            let mut hook = conf::pool_value((*cf.as_ptr()).pool, hook)?;
            hook.as_mut().looking = UnsafeCell::new(Event::new(look_later, hook.as_ptr().cast()));
            seat.as_mut().hook = Some(hook);
            let init: ngx_http_upstream_init_peer_pt = Some(ngx_http_upstream_control_init_peer);
            (*us).peer.init = init;
        }
        Some(())
    }

    /// The hook of an upstream.
    ///
    /// # Safety
    ///
    /// `us` is an upstream of the running configuration.
    unsafe fn of<'a>(us: *mut ngx_http_upstream_srv_conf_t) -> Option<&'a Self> {
        // SAFETY: the settings of this module begin with a seat, and hooks live in the configuration's pool.
        unsafe { conf::srv_conf_in::<Seat>((*us).srv_conf)?.as_ref().hook.map(|hook| hook.as_ref()) }
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
