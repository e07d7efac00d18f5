//! Work that a worker does after the present event, or after a while.

use std::cell::{RefCell, UnsafeCell};
use std::ffi::c_void;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;

use nginx_sys::{
    NGX_PROCESS_SINGLE, ngx_add_timer, ngx_connection_t, ngx_del_timer, ngx_delete_posted_event, ngx_event_t,
    ngx_msec_t, ngx_post_event, ngx_posted_events, ngx_posted_next_events, ngx_process, ngx_socket_t,
    ngx_uint_t,
};

use super::log::Log;

/// Milliseconds after which the timer of a posted event is due. The event runs in the next round of nginx's loop, and
/// just once if that comes later than this.
const HOLD: ngx_msec_t = 60_000;

/// When an event comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// After so many milliseconds.
    After(u64),
    /// When the worker has looked at its other events.
    Next,
    /// When somebody sets it off.
    OnDemand,
}

/// An event of this worker: a word for nginx's queues, and what to do. Dropped, it is in no queue any more.
pub struct Event {
    /// Where nginx's side is. nginx's queues point there, so that it does not move with this.
    task: Rc<Task<dyn FnMut() -> Again>>,
}

/// What nginx's queues point to. nginx takes it for a connection when it writes to its debug log, and reads the
/// descriptor.
#[repr(C)]
struct Task<F: ?Sized> {
    /// What a connection has before it.
    before_fd: [*mut c_void; 3],
    /// No descriptor.
    fd: ngx_socket_t,
    /// nginx's side, which nginx writes to.
    event: UnsafeCell<ngx_event_t>,
    /// What to do.
    work: RefCell<F>,
}

const _: () = assert!(offset_of!(Task<()>, fd) == offset_of!(ngx_connection_t, fd));

// === impl Event ===

impl Event {
    /// An event that does `work`, and comes again as that says.
    pub fn new<F: FnMut() -> Again + 'static>(work: F) -> Self {
        // SAFETY: the structure is plain words, for which zeroes are nginx's own start.
        let event: ngx_event_t = unsafe { std::mem::zeroed() };
        let event = ngx_event_t { handler: Some(run::<F>), ..event };
        let (before_fd, event, work) = ([ptr::null_mut(); 3], UnsafeCell::new(event), RefCell::new(work));
        let task = Rc::new(Task { before_fd, fd: -1, event, work });
        // SAFETY: nginx does not know the event yet.
        unsafe { (*task.event.get()).data = Rc::as_ptr(&task).cast_mut().cast() };
        Self { task }
    }

    /// Sets the event off after so many milliseconds, unless it is set already. It does not keep a worker that is to end.
    pub fn set_timer(&self, after: u64) {
        self.task.set_timer(after);
    }

    /// Posts the event for the next round of nginx's loop, so that other events come first. A worker that is to end
    /// waits for it.
    pub fn post_next(&self) {
        self.task.post_next();
    }

    /// Posts the event, unless it is posted already.
    pub fn post(&self) {
        let event = self.task.prepared(true);
        // SAFETY: the queue is this worker's own. The event is taken out before its memory is given back.
        unsafe { ngx_post_event(event, &raw mut ngx_posted_events) };
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.task.disarm();
    }
}

// === impl Task ===

impl<F: ?Sized> Task<F> {
    /// nginx's side, with the log of the running configuration: that of a request may end before the event comes. Says
    /// whether a worker that is to end may go without it.
    fn prepared(&self, is_cancelable: bool) -> *mut ngx_event_t {
        let event = self.event.get();
        // SAFETY: one thread runs a worker, and no reference to nginx's side is kept anywhere.
        unsafe {
            (*event).log = Log::of_process().map_or(ptr::null_mut(), Log::as_ptr);
            (*event).set_cancelable(u32::from(is_cancelable));
        }
        event
    }

    /// See [`Event::set_timer`].
    fn set_timer(&self, after: u64) {
        let event = self.prepared(true);
        // In single-process mode a configuration's zones end before its timers would.
        // SAFETY: nginx sets the word before it runs a worker.
        let is_worker = unsafe { (&raw const ngx_process).read() } != NGX_PROCESS_SINGLE as ngx_uint_t;
        // SAFETY: the timers are this worker's own. The event is taken out before its memory is given back.
        unsafe {
            if is_worker && (*event).timer_set() == 0 {
                ngx_add_timer(event, ngx_msec_t::try_from(after).unwrap_or(ngx_msec_t::MAX));
            }
        }
    }

    /// See [`Event::post_next`].
    fn post_next(&self) {
        // A worker ends when no timer is left that is not cancelable, whatever is posted.
        let event = self.prepared(false);
        // SAFETY: as in `set_timer`; nginx moves the queue to that of posted events in the next round. `run` takes the
        // timer out.
        unsafe {
            ngx_add_timer(event, HOLD);
            ngx_post_event(event, &raw mut ngx_posted_next_events);
        }
    }

    /// Whether `post_next` set the event off last: a worker that is to end waits for it.
    fn is_held(&self) -> bool {
        // SAFETY: one thread runs a worker.
        unsafe { (*self.event.get()).cancelable() == 0 }
    }

    /// Takes the event out of nginx's timers and queues.
    fn disarm(&self) {
        let event = self.event.get();
        // SAFETY: nginx's timers and queues are this process's own, outlive a configuration in single-process mode, and
        // the event says whether it is in them.
        unsafe {
            if (*event).timer_set() != 0 {
                ngx_del_timer(event);
            }
            if (*event).posted() != 0 {
                ngx_delete_posted_event(event);
            }
        }
    }
}

/// nginx's entry.
unsafe extern "C" fn run<F: FnMut() -> Again + 'static>(event: *mut ngx_event_t) {
    // SAFETY: nginx calls this with the event of a task that `Event::new` made with this work. It was in a queue, so that
    // its owner is there; the work may drop it, but not what is counted here.
    let task = unsafe {
        let task = (*event).data.cast::<Task<F>>().cast_const();
        Rc::increment_strong_count(task);
        Rc::from_raw(task)
    };
    // What `post_next` put into a timer and a queue was brought here by one of them, and was asked for once. A timer of
    // `set_timer` stays beside a post.
    if task.is_held() {
        task.disarm();
    }
    let again = catch_unwind(AssertUnwindSafe(|| match task.work.try_borrow_mut() {
        Ok(mut work) => work(),
        // Within its own work.
        Err(_) => Again::OnDemand,
    }));
    let has_owner = Rc::strong_count(&task) > 1;
    match again {
        Ok(Again::After(after)) if has_owner => task.set_timer(after),
        Ok(Again::Next) if has_owner => task.post_next(),
        Ok(_) => {}
        Err(_) => {
            if let Some(log) = Log::of_process() {
                log.alert("upstream control: an event failed");
            }
        }
    }
}

#[cfg(all(test, feature = "nginx-objs"))]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, pipe};
    use std::mem::zeroed;
    use std::os::fd::AsRawFd;
    use std::sync::Once;

    use nginx_sys::{
        NGX_LOG_DEBUG_EVENT, NGX_OK, NGX_PROCESS_WORKER, ngx_cycle, ngx_event_expire_timers,
        ngx_event_timer_init, ngx_int_t, ngx_log_t, ngx_open_file_t, ngx_time_init,
    };

    use super::super::fixture;
    use super::*;

    /// Does `test` in a worker without timers.
    fn in_a_worker(test: impl FnOnce()) {
        // nginx's clock would stand still after a second one.
        static CLOCK: Once = Once::new();
        fixture::start();
        // SAFETY: one thread runs nginx's code; the fixture's cycle and its log are never freed.
        unsafe {
            CLOCK.call_once(|| ngx_time_init());
            assert_eq!(ngx_event_timer_init((*ngx_cycle).log), NGX_OK as ngx_int_t);
            let before = ptr::replace(&raw mut ngx_process, NGX_PROCESS_WORKER as ngx_uint_t);
            test();
            ngx_process = before;
        }
    }

    /// Runs what is due.
    fn expire() {
        // SAFETY: one thread runs nginx's code, and the timers were initialized.
        unsafe { ngx_event_expire_timers() };
    }

    /// An event that counts its calls, and comes again as told.
    fn counting(calls: &Rc<Cell<u32>>, again: Again) -> Event {
        let calls = Rc::clone(calls);
        Event::new(move || {
            calls.set(calls.get() + 1);
            again
        })
    }

    #[test]
    fn an_event_that_is_set_off_may_be_moved() {
        in_a_worker(|| {
            let calls = Rc::default();
            let event = counting(&calls, Again::OnDemand);
            event.set_timer(0);
            let moved = Box::new(event);
            expire();
            expire();
            assert_eq!(calls.get(), 1);
            moved.set_timer(0);
            drop(moved);
            expire();
            assert_eq!(calls.get(), 1, "an event that is gone");
        });
    }

    #[test]
    fn an_event_comes_again_as_its_work_says() {
        in_a_worker(|| {
            let calls: Rc<Cell<u32>> = Rc::default();
            for (again, is_set) in [(Again::OnDemand, 0), (Again::After(60_000), 1)] {
                calls.set(0);
                let event = counting(&calls, again);
                event.set_timer(0);
                expire();
                expire();
                // SAFETY: one thread runs nginx's code.
                let found = unsafe { (*event.task.event.get()).timer_set() };
                assert_eq!((calls.get(), found), (1, is_set), "{again:?}");
            }
        });
    }

    #[test]
    fn an_event_may_end_with_its_own_work() {
        in_a_worker(|| {
            let calls: Rc<Cell<u32>> = Rc::default();
            let place: Rc<RefCell<Option<Event>>> = Rc::default();
            let (counted, owner) = (Rc::clone(&calls), Rc::clone(&place));
            let event = Event::new(move || {
                drop(owner.take());
                counted.set(counted.get() + 1);
                Again::Next
            });
            place.borrow_mut().insert(event).set_timer(0);
            expire();
            assert_eq!((calls.get(), Rc::strong_count(&calls)), (1, 1), "the work is gone, too");
        });
    }

    #[test]
    fn the_debug_log_reads_no_descriptor_behind_a_timer() {
        let (mut read, write) = pipe().unwrap();
        let calls = Rc::default();
        in_a_worker(|| {
            // SAFETY: one thread runs nginx's code. Zeroes are a start for both structures, which outlive the event.
            unsafe {
                let mut file: ngx_open_file_t = zeroed();
                let mut log: ngx_log_t = zeroed();
                file.fd = write.as_raw_fd();
                log.file = &raw mut file;
                log.log_level = NGX_LOG_DEBUG_EVENT as ngx_uint_t;
                let before = ptr::replace(&raw mut (*ngx_cycle).log, &raw mut log);
                let event = counting(&calls, Again::OnDemand);
                event.set_timer(0);
                expire();
                drop(event);
                (*ngx_cycle).log = before;
            }
        });
        assert_eq!(calls.get(), 1);
        drop(write);
        let mut written = String::new();
        read.read_to_string(&mut written).unwrap();
        assert!(written.contains("event timer del: -1: "), "{written}");
    }
}
