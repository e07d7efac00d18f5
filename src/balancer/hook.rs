//! The hook on `peer.init`: outermost, so that keepalive and sticky are inside.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_ERROR, NGX_OK, ngx_conf_t, ngx_connection_t, ngx_http_request_t, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_srv_conf_t, ngx_int_t,
};

use crate::live::{Upstream, follow};
use crate::nginx::conf;
use crate::nginx::event::Event;
use crate::store::AT_ONCE;
use crate::zone;
use crate::zone::backend::Backend;

use super::guarded;
use super::idle::{self, Idle};
use super::pools::Composed;
use super::request;

/// Where an upstream's hook is found: the first words of this module's settings of the upstream.
#[repr(C)]
#[derive(Default)]
pub struct Seat {
    /// The hook of one that has servers; none in an upstream without one, and in server blocks.
    hook: Option<NonNull<Hook>>,
    /// The hook of an upstream that has pools in the place of servers.
    pub(super) composed: Option<NonNull<Composed>>,
}

/// What the hook of one upstream knows.
pub struct Hook {
    /// The function that was there before.
    original: unsafe extern "C" fn(*mut ngx_http_request_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t,
    /// The upstream.
    pub(super) upstream: NonNull<Upstream>,
    /// Catches up with the store.
    catching_up: UnsafeCell<Event>,
    /// The idle connections of this worker.
    idle: Idle,
    /// Looks at them.
    looking: UnsafeCell<Event>,
    /// What the balancer computed from the lists in this worker, where it has to follow them.
    tables: Option<zone::Tables>,
    /// The count of changes that the tables show; none until they are computed for the first time.
    shown: Cell<Option<u64>>,
}

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

    /// Lets the balancer prepare, by what the lists are now.
    ///
    /// # Safety
    ///
    /// Called in a worker with a request that has an upstream, and the upstream that was hooked.
    pub(super) unsafe fn prepare(
        &self,
        r: *mut ngx_http_request_t,
        us: *mut ngx_http_upstream_srv_conf_t,
    ) -> ngx_int_t {
        // SAFETY: see above; the function was nginx's own for this upstream.
        unsafe {
            if self.upstream().is_pool.get()
                && let Some(control) = self.upstream().control()
            {
                control.zone.settle_pool();
            }
            if let Some((tables, control)) = self.tables.as_ref().zip(self.upstream().control()) {
                if Some(control.zone.membership()) != self.shown.get()
                    && let Some(shown) = zone::Current::refresh(tables, &control.zone)
                {
                    self.shown.set(Some(shown));
                }
                // Those that the balancer would make end where the list ends now.
                if !zone::Current::is_usable(tables) {
                    return NGX_ERROR as ngx_int_t;
                }
            }
            (self.original)(r, us)
        }
    }

    /// Before a peer is chosen: lets the lists show what others changed. What cannot be done at once is done after the
    /// present event.
    #[inline]
    pub(super) fn keep_up(&self) {
        let Some(control) = self.upstream().control() else { return };
        control.keep_up();
        if control.is_behind(control.zone.membership()) {
            // SAFETY: one thread runs a worker, and the event is reached from here only. The request's log ends with it,
            // the cycle's does not.
            unsafe { (*self.catching_up.get()).post((*nginx_sys::ngx_cycle).log) };
        }
    }

    /// Notes a connection that keepalive took, and makes sure that somebody looks at it.
    ///
    /// # Safety
    ///
    /// The connection is one of this worker's.
    pub(super) unsafe fn note_idle(&self, connection: *mut ngx_connection_t, socket: Option<u64>) {
        // SAFETY: see above.
        unsafe { self.idle.note(connection, socket) };
        self.look_soon();
    }

    /// Sees to it that idle connections and peers that left are looked at.
    pub(super) fn look_soon(&self) {
        // SAFETY: one thread runs a worker, and the event is reached from here only. The request's log ends with it, the
        // cycle's does not.
        unsafe { (*self.looking.get()).set_timer((*nginx_sys::ngx_cycle).log, idle::LOOK) };
    }

    /// The idle connections of this worker.
    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    /// The upstream.
    pub(super) fn upstream(&self) -> &Upstream {
        // SAFETY: it lives in the pool of the configuration, as the hook does.
        unsafe { self.upstream.as_ref() }
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

/// Catches up with the store, after the present event. This worker serves requests: if another one has the store's lock,
/// the next request tries again.
unsafe fn catch_up_later(upstream: *mut c_void) {
    // SAFETY: the event was made with this pointer; the upstream lives as long as the event.
    if let Some(control) = unsafe { upstream.cast::<Upstream>().as_ref() }.and_then(Upstream::control) {
        follow(control, AT_ONCE);
    }
}

/// Looks at the idle connections from time to time, as long as there are any, and frees peers that left.
unsafe fn look_later(hook: *mut c_void) {
    // SAFETY: the event was made with this pointer; the hook lives as long as the event.
    let Some(hook) = (unsafe { hook.cast::<Hook>().as_ref() }) else { return };
    let Some(control) = hook.upstream().control() else { return };
    hook.idle.look(control.extra());
    let is_reaped = control.reap(AT_ONCE);
    if hook.idle.any() || !is_reaped {
        hook.look_soon();
    }
}
