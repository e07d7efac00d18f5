//! What nginx calls for a request in a location of this module, and what scripts call: the edge between nginx and the
//! core, which reads requests and makes replies.

mod context;
mod control;
mod edge;
mod lua;
mod status;

use crate::nginx::http::{self, ngx_http_request_t, ngx_int_t};

pub use context::Context;

/// Content handler of a location with `upstream_status`.
///
/// # Safety
///
/// Only nginx may call it, with the request that it is processing, and with configurations of this module that begin
/// with a [`Context`] and a [`Settings`](crate::forms::Settings).
pub unsafe extern "C" fn ngx_http_upstream_status_handler(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers in a worker, with a request that lives until it is finalized.
    unsafe { http::serve::<status::Status>(r) }
}

/// Content handler of a location with `upstream_control` or `upstream_conf`.
///
/// # Safety
///
/// Only nginx may call it, with the request that it is processing, and with configurations of this module that begin
/// with a [`Context`] and a [`Settings`](crate::forms::Settings).
pub unsafe extern "C" fn ngx_http_upstream_control_handler(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls content handlers in a worker, with a request that lives until it is finalized.
    unsafe { http::serve::<control::Control>(r) }
}
