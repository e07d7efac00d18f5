//! Work on a request that takes too long to be done at once: in slices, each in an event of its own, between which the
//! worker serves others.

use std::ptr::NonNull;

use nginx_sys::{
    NGX_DONE, NGX_ERROR, NGX_OK, ngx_handle_read_event, ngx_http_finalize_request,
    ngx_http_request_empty_handler, ngx_http_request_t, ngx_http_run_posted_requests, ngx_http_test_reading,
    ngx_int_t,
};

use super::body::Collector;
use super::conf::pool_value;
use super::event::{Again, Event};
use super::handler::{Finish, Handler, Then, Work, guarded};
use super::memory;
use super::reply::{send, send_plain};
use super::request::Request;
use crate::http::Response;

unsafe extern "C" {
    /// Counts one more user of a request.
    fn nuc_count(r: *mut ngx_http_request_t);
}

/// What is done with a request.
enum Stage {
    /// Its body is collected.
    Collect(Collector, Then),
    /// It is worked on.
    Work(Box<dyn Work>),
}

/// A request that is worked on, in its own pool.
struct Running {
    /// The request.
    r: *mut ngx_http_request_t,
    /// What is done; none while it is done.
    stage: Option<Stage>,
    /// The event of the next slice.
    event: Option<Event>,
}

/// Begins with a request whose body is there. Returns what it is to be finalized with.
///
/// # Safety
///
/// `r` must be a request whose body was read, from a callback of nginx.
pub(super) unsafe fn begin<H: Handler>(r: *mut ngx_http_request_t, limit: usize, then: Then) -> ngx_int_t {
    // SAFETY: the request is valid by the duty of the caller.
    let stage = Stage::Collect(unsafe { Collector::new(r, limit) }, then);
    if !memory::is_left() {
        // SAFETY: as above; nothing was sent before.
        return unsafe { send_plain(r, H::exhausted()) };
    }
    // SAFETY: as above.
    match unsafe { slice(r, stage) } {
        // SAFETY: as above; nothing was sent before.
        Ok(response) => unsafe { send(r, response) },
        // SAFETY: as above.
        Err(stage) => unsafe { put_off::<H>(r, stage) },
    }
}

/// Does a slice. The error is what is left to do.
///
/// # Safety
///
/// `r` must be a request whose body was read.
unsafe fn slice(r: *mut ngx_http_request_t, stage: Stage) -> Result<Response, Stage> {
    // SAFETY: the request is valid by the duty of the caller.
    let request = unsafe { Request::new(r) };
    let mut work = match stage {
        Stage::Work(work) => work,
        Stage::Collect(mut collector, then) => {
            let body = match collector.step() {
                Ok(None) => return Err(Stage::Collect(collector, then)),
                Ok(Some(body)) => Ok(body),
                Err(error) => Err(error),
            };
            match then(&request, body) {
                Finish::Reply(response) => return Ok(response),
                Finish::Work(work) => work,
            }
        }
    };
    work.slice(&request).ok_or(Stage::Work(work))
}

/// Puts the rest off to an event. Returns what the present callback is to finalize the request with.
///
/// # Safety
///
/// `r` must be a request whose body was read.
unsafe fn put_off<H: Handler>(r: *mut ngx_http_request_t, stage: Stage) -> ngx_int_t {
    let error = NGX_ERROR as ngx_int_t;
    let running = Running { r, stage: Some(stage), event: None };
    // SAFETY: the request is valid by the duty of the caller. What is kept in its pool is dropped with it.
    let Some(mut running) = (unsafe { pool_value((*r).pool, running) }) else { return error };
    // SAFETY: the event ends with the request, and with what is kept for it; nobody else refers to that.
    let event = Event::new(move || unsafe { go_on::<H>(running) });
    event.post_next();
    // SAFETY: as above. A client that goes away meanwhile is noticed, and the request ends then. Nothing is written yet.
    unsafe {
        running.as_mut().event = Some(event);
        (*r).read_event_handler = Some(ngx_http_test_reading);
        (*r).write_event_handler = Some(ngx_http_request_empty_handler);
        if ngx_handle_read_event((*(*r).connection).read, 0) != NGX_OK as ngx_int_t {
            return error;
        }
        nuc_count(r);
    }
    NGX_DONE as ngx_int_t
}

/// Does the next slice, in an event. Says when the one after it is to come.
///
/// # Safety
///
/// `running` is that of a request that is alive.
unsafe fn go_on<H: Handler>(mut running: NonNull<Running>) -> Again {
    // SAFETY: the duty of the caller. Nothing refers to it while a slice is done.
    let (r, stage) = unsafe { (running.as_ref().r, running.as_mut().stage.take()) };
    let Some(stage) = stage else { return Again::OnDemand };
    if !memory::is_left() {
        // What was done so far gives back what it has.
        drop(stage);
        // SAFETY: the request is alive, and nothing was sent before.
        unsafe { end(r, send_plain(r, H::exhausted())) };
        return Again::OnDemand;
    }
    let mut rest = None;
    // SAFETY: the request is alive, its body was read, and nothing was sent before.
    let code = unsafe {
        guarded::<H>(r, || match slice(r, stage) {
            Ok(response) => send(r, response),
            Err(stage) => {
                rest = Some(stage);
                NGX_OK as ngx_int_t
            }
        })
    };
    if rest.is_some() {
        // SAFETY: the request goes on, and with it what is kept in its pool.
        unsafe { running.as_mut().stage = rest };
        return Again::Next;
    }
    // SAFETY: the request is alive; nothing in its pool is used after this.
    unsafe { end(r, code) };
    Again::OnDemand
}

/// Finalizes a request that [`put_off`] held.
///
/// # Safety
///
/// The request is alive; whoever calls this does not use it any more.
unsafe fn end(r: *mut ngx_http_request_t, code: ngx_int_t) {
    // SAFETY: the duty of the caller; nginx keeps connections that are closed in a list.
    unsafe {
        let connection = (*r).connection;
        ngx_http_finalize_request(r, code);
        ngx_http_run_posted_requests(connection);
    }
}
