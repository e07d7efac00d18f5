//! The hook on `peer.init`: outermost, so that keepalive and sticky are inside.

use std::cell::Cell;
use std::rc::Rc;

use nginx_sys::{NGX_ERROR, ngx_http_request_t, ngx_http_upstream_srv_conf_t, ngx_int_t};

use crate::live::{Control, Upstream, follow};
use crate::nginx::event::{Again, Event};
use crate::store::AT_ONCE;
use crate::zone;
use crate::zone::backend::Backend;

use super::idle::Idle;

/// nginx's type of the function by which a balancer prepares for a request.
pub(super) type InitPeer =
    unsafe extern "C" fn(*mut ngx_http_request_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

/// What the hook of one upstream knows.
pub struct Hook {
    /// The function that was there before.
    original: InitPeer,
    /// The upstream.
    upstream: Rc<Upstream>,
    /// Catches up with the store, after the present event. This worker serves requests: if another one has the store's
    /// lock, the next request tries again.
    catching_up: Event,
    /// The idle connections of this worker.
    idle: Idle,
    /// What the balancer computed from the lists in this worker, where it has to follow them.
    tables: Option<zone::Tables>,
    /// The count of changes that the tables show; none until they are computed for the first time.
    shown: Cell<Option<u64>>,
}

impl Hook {
    /// A hook in the place of a function.
    pub(super) fn new(original: InitPeer, upstream: Rc<Upstream>, tables: Option<zone::Tables>) -> Self {
        let behind = Rc::clone(&upstream);
        let catching_up = Event::new(move || {
            if let Some(control) = behind.control() {
                follow(control, AT_ONCE);
            }
            Again::OnDemand
        });
        let shown = Cell::new(tables.as_ref().and_then(zone::Current::shown));
        Self { original, upstream, catching_up, idle: Idle::default(), tables, shown }
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
        if control.is_behind(control.zone.membership()) {
            self.keep_up_behind(control);
        }
    }

    /// The same, when there is something to show.
    #[cold]
    fn keep_up_behind(&self, control: &Control) {
        control.keep_up();
        if control.is_behind(control.zone.membership()) {
            self.catching_up.post();
        }
    }

    /// Closes the idle connections to servers that left since the last look.
    pub(super) fn look(&self) {
        if let Some(control) = self.upstream().control() {
            self.idle.look(control.extra());
        }
    }

    /// The idle connections of this worker.
    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    /// The upstream.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}
