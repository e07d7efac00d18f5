//! The edge between nginx's requests and the handlers: serves a request by a handler, and reads its body first if the
//! handler asks for that.

use nginx_sys::{
    NGX_DONE, NGX_HTTP_SPECIAL_RESPONSE, ngx_http_finalize_request, ngx_http_read_client_request_body, off_t,
};

pub use nginx_sys::{ngx_http_request_t, ngx_int_t};

pub use super::handler::{Finish, Handler, Step, Work};
pub use super::request::Request;

use super::handler::guarded;
use super::reply::{send, send_plain};
use super::{memory, pieces, work};
use crate::http::BodyError;

/// Serves a request by `H`; what a content handler is made of.
///
/// # Safety
///
/// `r` must be the request that nginx is calling a content handler for.
pub unsafe fn serve<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: the duty of the caller, for all three calls.
    unsafe {
        if !memory::is_left() {
            return send_plain(r, H::exhausted());
        }
        guarded::<H>(r, || match H::start(&Request::new(r)) {
            Step::Reply(response) => send(r, response),
            Step::Stream(response, rest) => pieces::send(r, response, rest),
            Step::ReadBody => read::<H>(r),
        })
    }
}

/// Reads the body and answers by [`Handler::finish`], now or when the body has come; the content handler returns what
/// this returns. A body that says that it is too large is not read at all; one in chunks is found to be too large when
/// it is there, for which nginx's `client_max_body_size` is the bound.
///
/// # Safety
///
/// `r` must be the request that nginx is calling a content handler for.
unsafe fn read<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: the request is valid by the duty of the caller.
    let limit = off_t::try_from(H::body_limit(&unsafe { Request::new(r) })).unwrap_or(off_t::MAX);
    // SAFETY: as above.
    if unsafe { (*r).headers_in.content_length_n } > limit {
        // SAFETY: as above; nothing was sent before.
        return unsafe { send(r, H::without_body(&Request::new(r), BodyError::TooLarge)) };
    }
    // SAFETY: as above. nginx counts one more user of the request, whom `ready` takes away by finalizing it.
    let code = unsafe { ngx_http_read_client_request_body(r, Some(ready::<H>)) };
    if code >= NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t { code } else { NGX_DONE as ngx_int_t }
}

/// Called by nginx in the worker when the body is there: at once, or from a later event.
unsafe extern "C" fn ready<H: Handler>(r: *mut ngx_http_request_t) {
    // SAFETY: nginx calls with the request whose body it read, which lives until it is finalized.
    unsafe { ngx_http_finalize_request(r, guarded::<H>(r, || work::begin::<H>(r))) };
}
