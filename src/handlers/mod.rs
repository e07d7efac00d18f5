//! What nginx calls for a request in a location of this module, and what scripts call: the edge between nginx and the
//! core, which reads requests and makes replies.

mod control;
mod lua;
mod status;

use std::cell::Cell;

use crate::forms::{Answer, Call, Settings};
use crate::http::Response;
use crate::model::log::Level;
use crate::nginx::http::{self, Request, ngx_http_request_t, ngx_int_t};
use crate::ops::Upstreams;

/// What the handlers need of the http block. The module's main configuration must begin with it, and be `repr(C)`:
/// handlers cast the pointer to that configuration to a pointer to this.
#[repr(C)]
#[derive(Default)]
pub struct Context {
    /// The upstreams; none if the module has no shared memory.
    pub upstreams: Option<Box<dyn Upstreams>>,
    /// Whether the configuration was started, so that its zones are there. Requests come later than that in any case,
    /// scripts do not.
    pub is_started: Cell<bool>,
}

/// Content handler of a location with `upstream_status`.
///
/// # Safety
///
/// Only nginx may call it, with the request that it is processing, and with configurations of this module that begin
/// with a [`Context`] and a [`Settings`].
pub unsafe extern "C" fn ngx_http_upstream_status_handler(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers in a worker, with a request that lives until it is finalized.
    unsafe { http::serve::<status::Status>(r) }
}

/// Content handler of a location with `upstream_control` or `upstream_conf`.
///
/// # Safety
///
/// Only nginx may call it, with the request that it is processing, and with configurations of this module that begin
/// with a [`Context`] and a [`Settings`].
pub unsafe extern "C" fn ngx_http_upstream_control_handler(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers in a worker, with a request that lives until it is finalized.
    unsafe { http::serve::<control::Control>(r) }
}

/// The call that a request is.
fn call<'a>(request: &'a Request<'_>) -> Call<'a> {
    Call {
        method: request.method(),
        is_subrequest: request.is_subrequest(),
        uri: request.uri(),
        args: request.args(),
        host: request.host(),
        accept: request.header("accept"),
        content_type: request.header("content-type"),
        origin: request.header("origin"),
        fetch_site: request.header("sec-fetch-site"),
        client: request.client(),
        now: request.now(),
        notices: request.log().is_some_and(|log| log.takes(Level::Notice)),
    }
}

/// The upstreams of the http block.
fn upstreams<'a>(request: &'a Request<'_>) -> Option<&'a dyn Upstreams> {
    // SAFETY: the module's main configuration begins with a `Context`, by the duty of the entry function's caller.
    let context = unsafe { request.main_conf::<Context>() };
    context.and_then(|context| context.upstreams.as_deref())
}

/// What the directive of the location says, if it has one.
fn settings<'a>(request: &'a Request<'_>) -> Option<&'a Settings> {
    // SAFETY: the module's location configuration begins with a `Settings`, by the duty of the entry function's caller.
    unsafe { request.loc_conf::<Settings>() }
}

/// Writes to the log and gives the reply.
fn deliver(answer: Answer, request: &Request<'_>) -> Response {
    if let Some(log) = request.log() {
        for (level, line) in &answer.log {
            log.write(*level, line);
        }
    }
    answer.response
}
