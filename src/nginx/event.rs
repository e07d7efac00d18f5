//! Work that a worker does after the present event.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nginx_sys::{ngx_event_t, ngx_log_t, ngx_post_event, ngx_posted_events};

use super::log::Log;

/// An event that can be posted: a word for nginx's queue, and what to do.
///
/// It must stay at its address while it is posted, which it is for no longer than the present round of events.
pub struct Posted {
    /// nginx's side.
    event: ngx_event_t,
}

/// What a posted event does, given the pointer that it was made with.
type Work = unsafe fn(*mut c_void);

/// The pointers behind a posted event.
struct Task {
    /// What to do.
    work: Work,
    /// With what.
    with: *mut c_void,
}

impl Posted {
    /// An event that calls `work(with)`.
    ///
    /// # Safety
    ///
    /// `work` may be called with `with` for as long as the event may be posted.
    pub unsafe fn new(work: Work, with: *mut c_void) -> Self {
        // SAFETY: the structure is plain words, for which zeroes are nginx's own start.
        let mut event: ngx_event_t = unsafe { std::mem::zeroed() };
        event.data = Box::into_raw(Box::new(Task { work, with })).cast();
        event.handler = Some(run);
        Self { event }
    }

    /// Posts the event, unless it is posted already.
    pub fn post(&mut self, log: *mut ngx_log_t) {
        self.event.log = log;
        // SAFETY: the queue is this worker's own, and the event stays where it is until it has run.
        unsafe { ngx_post_event(&raw mut self.event, &raw mut ngx_posted_events) };
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and given back once.
        drop(unsafe { Box::from_raw(self.event.data.cast::<Task>()) });
    }
}

/// nginx's entry.
unsafe extern "C" fn run(event: *mut ngx_event_t) {
    // SAFETY: nginx calls this with the event that was posted, whose task lives as long as it.
    let (task, log) = unsafe { (&*(*event).data.cast::<Task>(), (*event).log) };
    // SAFETY: see `Posted::new`.
    if catch_unwind(AssertUnwindSafe(|| unsafe { (task.work)(task.with) })).is_err() {
        // SAFETY: nginx's logs outlive its events.
        if let Some(log) = unsafe { Log::from_raw(log) } {
            log.alert("upstream control: an event failed");
        }
    }
}
