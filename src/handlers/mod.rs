//! What nginx calls for a request in a location of this module: parse, let `ops` act, reply.
//!
//! The handlers see a request as a [`Call`] and the upstreams as a trait, so that all of them can be tested without
//! nginx. HTTP status codes appear here and nowhere else in the crate.

mod accept;
mod arguments;
mod browser;
mod call;
mod control;
mod error;
#[cfg(test)]
mod fake;
mod guard;
mod lua;
mod markup;
mod peer;
mod respond;
mod scope;
mod settings;
mod status;

use std::cell::Cell;

use crate::nginx::http::{self, ngx_http_request_t, ngx_int_t};
use crate::ops::Upstreams;

pub use settings::{Dialect, HostErrors, Methods, Role, Settings};

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
