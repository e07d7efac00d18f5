//! What a handler makes of requests, as the edge has it, and the fence around it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nginx_sys::{NGX_ERROR, ngx_http_request_t, ngx_int_t};

use super::reply;
use super::request::Request;
use crate::http::{BodyError, Pieces, Plain, Response};

/// What a handler makes of requests. Panics are caught around all of them.
pub trait Handler {
    /// Looks at a request whose body was not read yet.
    fn start(request: &Request<'_>) -> Step;

    /// The reply if that, or what it asked for, panicked.
    fn failed() -> Response;

    /// The reply if there is no memory to make one.
    fn exhausted() -> Plain;
}

/// What is to be done with a request.
pub enum Step {
    /// Reply; a body that came is thrown away.
    Reply(Response),
    /// The same with a body of which the response holds the beginning; the rest is made while the client reads.
    Stream(Response, Box<dyn Pieces>),
    /// Read the body first.
    ReadBody {
        /// Largest body that is taken, in bytes.
        limit: usize,
        /// What is done then.
        then: Then,
    },
}

/// Goes on with a request whose body is there, or is not to be had. What was read of the request is kept in it.
pub type Then = Box<dyn FnOnce(&Request<'_>, Result<Vec<u8>, BodyError>) -> Finish>;

/// What is to be done with a request whose body is there.
pub enum Finish {
    /// Reply.
    Reply(Response),
    /// Work on it first, in slices between which the worker serves others.
    Work(Box<dyn Work>),
}

/// Work on a request. It is dropped with the request if the client goes away.
pub trait Work {
    /// Does a slice of it, which takes some milliseconds at most. The reply, when all is done.
    fn slice(&mut self, request: &Request<'_>) -> Option<Response>;
}

/// Calls `work`; if it panics, logs that and sends [`Handler::failed`] instead.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for.
pub(super) unsafe fn guarded<H: Handler>(
    r: *mut ngx_http_request_t,
    work: impl FnOnce() -> ngx_int_t,
) -> ngx_int_t {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(code) => return code,
        Err(panic) => panic,
    };
    let error = NGX_ERROR as ngx_int_t;
    // SAFETY: the request is valid by the duty of the caller.
    unsafe { report(r, panic.as_ref()) };
    // SAFETY: the request is valid by the duty of the caller.
    if unsafe { reply::is_begun(r) } {
        return error;
    }
    // SAFETY: as above, and nothing was sent yet.
    catch_unwind(AssertUnwindSafe(|| unsafe { reply::send(r, H::failed()) })).unwrap_or(error)
}

/// Logs a panic.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for.
pub(super) unsafe fn report(r: *mut ngx_http_request_t, panic: &(dyn Any + Send)) {
    // SAFETY: the request is valid by the duty of the caller.
    if let Some(log) = unsafe { Request::new(r) }.log() {
        log.alert(format_args!("upstream control: panic: {}", words(panic)));
    }
}

/// The message of a panic.
pub(super) fn words(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
