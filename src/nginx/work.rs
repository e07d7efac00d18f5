//! Work on a request that takes too long to be done at once: in slices, each in an event of its own, between which the
//! worker serves others.

use std::ffi::c_void;

use nginx_sys::{
    NGX_DONE, NGX_ERROR, NGX_OK, ngx_handle_read_event, ngx_http_finalize_request,
    ngx_http_request_empty_handler, ngx_http_request_t, ngx_http_run_posted_requests, ngx_http_test_reading,
    ngx_int_t,
};

use super::body::Collector;
use super::conf::pool_value;
use super::event::Event;
use super::handler::{Finish, Handler, Work, guarded};
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
    Collect(Collector),
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
pub(super) unsafe fn begin<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: the request is valid by the duty of the caller.
    let limit = H::body_limit(&unsafe { Request::new(r) });
    // SAFETY: as above.
    let stage = Stage::Collect(unsafe { Collector::new(r, limit) });
    if !memory::is_left() {
        // SAFETY: as above; nothing was sent before.
        return unsafe { send_plain(r, H::exhausted()) };
    }
    // SAFETY: as above.
    match unsafe { slice::<H>(r, stage) } {
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
unsafe fn slice<H: Handler>(r: *mut ngx_http_request_t, stage: Stage) -> Result<Response, Stage> {
    // SAFETY: the request is valid by the duty of the caller.
    let request = unsafe { Request::new(r) };
    let mut work = match stage {
        Stage::Work(work) => work,
        Stage::Collect(mut collector) => {
            let body = match collector.step() {
                Ok(None) => return Err(Stage::Collect(collector)),
                Ok(Some(body)) => body,
                Err(error) => return Ok(H::without_body(&request, error)),
            };
            match H::finish(&request, body) {
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
    // SAFETY: the request is valid by the duty of the caller. What is kept in its pool is dropped with it, and takes
    // the event out of nginx's queue.
    unsafe {
        let running = Running { r, stage: Some(stage), event: None };
        let Some(mut running) = pool_value((*r).pool, running) else { return error };
        let event = Event::new(go_on::<H>, running.as_ptr().cast());
        running.as_mut().event.insert(event).post_next((*(*r).connection).log);
        // A client that goes away meanwhile is noticed, and the request ends then. Nothing is written yet.
        (*r).read_event_handler = Some(ngx_http_test_reading);
        (*r).write_event_handler = Some(ngx_http_request_empty_handler);
        if ngx_handle_read_event((*(*r).connection).read, 0) != NGX_OK as ngx_int_t {
            return error;
        }
        nuc_count(r);
    }
    NGX_DONE as ngx_int_t
}

/// Does the next slice, in an event.
///
/// # Safety
///
/// `with` is the [`Running`] of a request that is alive.
unsafe fn go_on<H: Handler>(with: *mut c_void) {
    // SAFETY: see above. The request was held by `put_off`, until it is finalized here. Nothing in its pool is used
    // after that; nginx keeps connections that are closed in a list.
    unsafe {
        let running: *mut Running = with.cast();
        let r = (*running).r;
        let connection = (*r).connection;
        let Some(stage) = (*running).stage.take() else { return };
        let mut is_done = true;
        if !memory::is_left() {
            // What was done so far gives back what it has.
            drop(stage);
            ngx_http_finalize_request(r, send_plain(r, H::exhausted()));
            return ngx_http_run_posted_requests(connection);
        }
        let code = guarded::<H>(r, || match slice::<H>(r, stage) {
            Ok(response) => send(r, response),
            Err(stage) => {
                (*running).stage = Some(stage);
                if let Some(event) = (*running).event.as_mut() {
                    event.post_next((*connection).log);
                }
                is_done = false;
                NGX_OK as ngx_int_t
            }
        });
        if is_done {
            ngx_http_finalize_request(r, code);
            ngx_http_run_posted_requests(connection);
        }
    }
}
