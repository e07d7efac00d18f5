//! Work that a worker does after the present event, or after a while.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nginx_sys::{
    NGX_PROCESS_SINGLE, ngx_add_timer, ngx_del_timer, ngx_delete_posted_event, ngx_event_t, ngx_log_t,
    ngx_msec_t, ngx_post_event, ngx_posted_events, ngx_posted_next_events, ngx_process, ngx_uint_t,
};

use super::log::Log;

/// An event: a word for nginx's queues, and what to do.
///
/// It must stay at its address while it is posted or set off.
pub struct Event {
    /// nginx's side.
    event: ngx_event_t,
}

/// Milliseconds after which the timer of a posted event is due. The event runs in the next round of nginx's loop, and
/// just once if that comes later than this.
const HOLD: ngx_msec_t = 60_000;

/// What an event does, given the pointer that it was made with.
type Work = unsafe fn(*mut c_void);

/// The pointers behind an event.
struct Task {
    /// What to do.
    work: Work,
    /// With what.
    with: *mut c_void,
}

impl Event {
    /// An event that calls `work(with)`.
    ///
    /// # Safety
    ///
    /// `work` may be called with `with` for as long as the event lives.
    pub unsafe fn new(work: Work, with: *mut c_void) -> Self {
        // SAFETY: the structure is plain words, for which zeroes are nginx's own start.
        let mut event: ngx_event_t = unsafe { std::mem::zeroed() };
        event.data = Box::into_raw(Box::new(Task { work, with })).cast();
        event.handler = Some(run);
        Self { event }
    }

    /// Sets the event off after so many milliseconds, unless it is set already. It does not keep a worker that is to end.
    pub fn set_timer(&mut self, log: *mut ngx_log_t, after: ngx_msec_t) {
        self.event.log = log;
        self.event.set_cancelable(1);
        // In single-process mode a configuration's zones end before its timers would.
        // SAFETY: nginx sets the word before it runs a worker.
        let is_worker = unsafe { ngx_process } != NGX_PROCESS_SINGLE as ngx_uint_t;
        if is_worker && self.event.timer_set() == 0 {
            // SAFETY: the timers are this worker's own, and the event stays where it is as long as the configuration.
            unsafe { ngx_add_timer(&raw mut self.event, after) };
        }
    }

    /// Posts the event for the next round of nginx's loop, so that other events come first. A worker that is to end
    /// waits for it.
    pub fn post_next(&mut self, log: *mut ngx_log_t) {
        self.event.log = log;
        // A worker ends when no timer is left that is not cancelable, whatever is posted.
        self.event.set_cancelable(0);
        // SAFETY: see `post`; nginx moves the queue to that of posted events in the next round. `run` takes the timer out.
        unsafe {
            ngx_add_timer(&raw mut self.event, HOLD);
            ngx_post_event(&raw mut self.event, &raw mut ngx_posted_next_events);
        }
    }

    /// Posts the event, unless it is posted already.
    pub fn post(&mut self, log: *mut ngx_log_t) {
        self.event.log = log;
        // SAFETY: the queue is this worker's own, and the event stays where it is until it has run.
        unsafe { ngx_post_event(&raw mut self.event, &raw mut ngx_posted_events) };
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nginx's queues are this process's own, and it takes an event out only if it is in. They outlive a
        // configuration in single-process mode. The task was made by `new`, and is given back once.
        unsafe {
            disarm(&raw mut self.event);
            drop(Box::from_raw(self.event.data.cast::<Task>()));
        }
    }
}

/// Takes an event out of nginx's timers and queues.
///
/// # Safety
///
/// The event is alive.
unsafe fn disarm(event: *mut ngx_event_t) {
    // SAFETY: nginx's timers and queues are this process's own, and the event says whether it is in them.
    unsafe {
        if (*event).timer_set() != 0 {
            ngx_del_timer(event);
        }
        if (*event).posted() != 0 {
            ngx_delete_posted_event(event);
        }
    }
}

/// nginx's entry.
unsafe extern "C" fn run(event: *mut ngx_event_t) {
    // SAFETY: nginx calls this with the event that was posted, whose task lives as long as it.
    let (task, log) = unsafe { (&*(*event).data.cast::<Task>(), (*event).log) };
    // SAFETY: as above. Of a timer and a place in a queue one brought us here; it was called for once.
    unsafe { disarm(event) };
    // SAFETY: see `Event::new`.
    if catch_unwind(AssertUnwindSafe(|| unsafe { (task.work)(task.with) })).is_err() {
        // SAFETY: nginx's logs outlive its events.
        if let Some(log) = unsafe { Log::from_raw(log) } {
            log.alert("upstream control: an event failed");
        }
    }
}
