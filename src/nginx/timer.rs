//! Work of a worker that goes on for as long as the process.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{ngx_cycle, ngx_msec_t};

use super::event::Event;

/// When the work goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// After so many milliseconds.
    After(u64),
    /// When the worker has looked at its other events.
    Next,
}

/// Work, with the event that it waits for.
struct Timer<F> {
    /// The event; none before it is made, since it knows the address of this.
    event: Option<Event>,
    /// The work.
    work: F,
}

/// Calls `work` after so many milliseconds, and then as it says. It does not keep a worker that is to end.
pub fn start<F: FnMut() -> Again + 'static>(after: u64, work: F) {
    // Never freed: it goes on until the process ends.
    let timer = NonNull::from(Box::leak(Box::new(Timer { event: None, work })));
    // SAFETY: the timer is never freed, so that `run` may be called with it at any time; nobody else refers to it.
    unsafe {
        let event = (*timer.as_ptr()).event.insert(Event::new(run::<F>, timer.as_ptr().cast()));
        wait(event, Again::After(after));
    }
}

/// Waits for what comes next.
fn wait(event: &mut Event, again: Again) {
    // SAFETY: a worker's cycle and its log live as long as the process.
    let log = unsafe { (*(&raw const ngx_cycle).read()).log };
    match again {
        Again::After(after) => event.set_timer(log, ngx_msec_t::try_from(after).unwrap_or(ngx_msec_t::MAX)),
        Again::Next => event.post_next(log),
    }
}

/// The event has come.
///
/// # Safety
///
/// `timer` is the [`Timer`] that [`start`] made.
unsafe fn run<F: FnMut() -> Again + 'static>(timer: *mut c_void) {
    // SAFETY: see above; one thread runs a worker, and the event comes once at a time.
    let Some(timer) = (unsafe { timer.cast::<Timer<F>>().as_mut() }) else { return };
    let again = (timer.work)();
    if let Some(event) = &mut timer.event {
        wait(event, again);
    }
}
