//! The hook of an upstream of pools.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::rc::Rc;

use nginx_sys::ngx_msec_t;

use crate::live::Pools;
use crate::nginx::event::Event;
use crate::nginx::time;

/// Time between two looks at the pools by one worker, in milliseconds, while requests find them other than they were.
const LOOK: u64 = 100;

/// What the hook of one upstream of pools knows.
pub struct Composed {
    /// The pools.
    pub(super) pools: Rc<Pools>,
    /// Finds out which pool is active.
    pub(super) looking: UnsafeCell<Event>,
    /// When this worker last looked.
    pub(super) looked: Cell<u64>,
}

impl Composed {
    /// The pools.
    pub(super) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Sees to it that somebody looks at the pools: after the present event, or some time after the last look.
    #[cold]
    pub(super) fn look_soon(&self) {
        let now = time::msec();
        let wait = self.looked.get().saturating_add(LOOK).saturating_sub(now);
        // SAFETY: one thread runs a worker, and the event is reached from here only. The request's log ends with it, the
        // cycle's does not.
        unsafe {
            let (looking, log) = (&mut *self.looking.get(), (*nginx_sys::ngx_cycle).log);
            if wait == 0 {
                self.looked.set(now);
                looking.post(log);
            } else {
                looking.set_timer(log, ngx_msec_t::try_from(wait).unwrap_or(0));
            }
        }
    }
}

/// Finds out which pool is active.
pub(super) unsafe fn look(pools: *mut c_void) {
    // SAFETY: the event was made with this pointer; the hook, which holds the pools, holds the event, too.
    if let Some(pools) = unsafe { pools.cast::<Pools>().as_ref() } {
        pools.observe();
    }
}
