//! Work that a worker does after the present event, or after a while.

use std::ffi::c_void;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use nginx_sys::{
    NGX_PROCESS_SINGLE, ngx_add_timer, ngx_connection_t, ngx_del_timer, ngx_delete_posted_event, ngx_event_t,
    ngx_log_t, ngx_msec_t, ngx_post_event, ngx_posted_events, ngx_posted_next_events, ngx_process,
    ngx_socket_t, ngx_uint_t,
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

/// What an event points to. nginx takes that for a connection when it writes to its debug log, and reads the descriptor.
#[repr(C)]
struct Task {
    /// What a connection has before it.
    before_fd: [*mut c_void; 3],
    /// No descriptor.
    fd: ngx_socket_t,
    /// What to do.
    work: Work,
    /// With what.
    with: *mut c_void,
}

const _: () = assert!(offset_of!(Task, fd) == offset_of!(ngx_connection_t, fd));

impl Event {
    /// An event that calls `work(with)`.
    ///
    /// # Safety
    ///
    /// `work` may be called with `with` for as long as the event lives.
    pub unsafe fn new(work: Work, with: *mut c_void) -> Self {
        // SAFETY: the structure is plain words, for which zeroes are nginx's own start.
        let mut event: ngx_event_t = unsafe { std::mem::zeroed() };
        let task = Task { before_fd: [ptr::null_mut(); 3], fd: -1, work, with };
        event.data = Box::into_raw(Box::new(task)).cast();
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
    // SAFETY: as above. What `post_next` put into a timer and a queue was brought here by one of them, and was asked for
    // once. A timer of `set_timer`, which is cancelable, stays beside a post.
    unsafe {
        if (*event).cancelable() == 0 {
            disarm(event);
        }
    }
    // SAFETY: see `Event::new`.
    if catch_unwind(AssertUnwindSafe(|| unsafe { (task.work)(task.with) })).is_err() {
        // SAFETY: nginx's logs outlive its events.
        if let Some(log) = unsafe { Log::from_raw(log) } {
            log.alert("upstream control: an event failed");
        }
    }
}

#[cfg(all(test, feature = "nginx-objs"))]
mod tests {
    use std::io::{Read, pipe};
    use std::mem::zeroed;
    use std::os::fd::AsRawFd;

    use nginx_sys::{
        NGX_LOG_DEBUG_EVENT, NGX_OK, NGX_PROCESS_WORKER, ngx_event_expire_timers, ngx_event_timer_init,
        ngx_int_t, ngx_open_file_t, ngx_time_init,
    };

    use super::*;

    /// Counts its calls.
    unsafe fn count(calls: *mut c_void) {
        // SAFETY: the event below is made with a pointer to a number.
        unsafe { *calls.cast::<u32>() += 1 };
    }

    #[test]
    fn the_debug_log_reads_no_descriptor_behind_a_timer() {
        let (mut read, write) = pipe().unwrap();
        let mut calls = 0_u32;
        // SAFETY: one thread runs nginx's code. Zeroes are a start for both structures, which outlive the event.
        unsafe {
            let mut file: ngx_open_file_t = zeroed();
            let mut log: ngx_log_t = zeroed();
            file.fd = write.as_raw_fd();
            log.file = &raw mut file;
            log.log_level = NGX_LOG_DEBUG_EVENT as ngx_uint_t;
            ngx_time_init();
            assert_eq!(ngx_event_timer_init(&raw mut log), NGX_OK as ngx_int_t);

            let mut event = Event::new(count, (&raw mut calls).cast());
            let before = ptr::replace(&raw mut ngx_process, NGX_PROCESS_WORKER as ngx_uint_t);
            event.set_timer(&raw mut log, 0);
            ngx_process = before;
            ngx_event_expire_timers();
        }
        assert_eq!(calls, 1);
        drop(write);
        let mut written = String::new();
        read.read_to_string(&mut written).unwrap();
        assert!(written.contains("event timer del: -1: "), "{written}");
    }
}
