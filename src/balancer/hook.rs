//! The hook on `peer.init`: outermost, so that keepalive and sticky are inside.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{NGX_ERROR, ngx_connection_t, ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_int_t};

use crate::live::{Upstream, follow};
use crate::nginx::event::Event;
use crate::store::AT_ONCE;
use crate::zone;
use crate::zone::backend::Backend;

use super::idle::{self, Idle};

/// What the hook of one upstream knows.
pub struct Hook {
    /// The function that was there before.
    pub(super) original:
        unsafe extern "C" fn(*mut ngx_http_request_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t,
    /// The upstream.
    pub(super) upstream: NonNull<Upstream>,
    /// Catches up with the store.
    pub(super) catching_up: UnsafeCell<Event>,
    /// The idle connections of this worker.
    pub(super) idle: Idle,
    /// Looks at them.
    pub(super) looking: UnsafeCell<Event>,
    /// What the balancer computed from the lists in this worker, where it has to follow them.
    pub(super) tables: Option<zone::Tables>,
    /// The count of changes that the tables show; none until they are computed for the first time.
    pub(super) shown: Cell<Option<u64>>,
}

impl Hook {
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

/// Catches up with the store, after the present event. This worker serves requests: if another one has the store's lock,
/// the next request tries again.
pub(super) unsafe fn catch_up_later(upstream: *mut c_void) {
    // SAFETY: the event was made with this pointer; the upstream lives as long as the event.
    if let Some(control) = unsafe { upstream.cast::<Upstream>().as_ref() }.and_then(Upstream::control) {
        follow(control, AT_ONCE);
    }
}

/// Looks at the idle connections from time to time, as long as there are any, and frees peers that left.
pub(super) unsafe fn look_later(hook: *mut c_void) {
    // SAFETY: the event was made with this pointer; the hook lives as long as the event.
    let Some(hook) = (unsafe { hook.cast::<Hook>().as_ref() }) else { return };
    let Some(control) = hook.upstream().control() else { return };
    hook.idle.look(control.extra());
    let is_reaped = control.reap(AT_ONCE);
    if hook.idle.any() || !is_reaped {
        hook.look_soon();
    }
}
