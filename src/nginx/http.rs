//! The edge between nginx's requests and the handlers: serves a request by a handler, and reads its body first if the
//! handler asks for that.

use nginx_sys::{
    NGX_DONE, NGX_ERROR, NGX_HTTP_SPECIAL_RESPONSE, ngx_http_finalize_request,
    ngx_http_read_client_request_body, off_t,
};

pub use nginx_sys::{ngx_http_request_t, ngx_int_t};

pub use super::handler::{Finish, Handler, Step, Then, Work};
pub use super::request::Request;

use super::conf::{ctx_of_request, pool_value, set_ctx_of_request};
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
            Step::ReadBody { limit, then } => read::<H>(r, limit, then),
        })
    }
}

/// What is to be done when a body is there, in the request's pool.
struct Waiting {
    /// Largest body that is taken, in bytes.
    limit: usize,
    /// What is done; none when it was begun.
    then: Option<Then>,
}

/// Reads the body and goes on with it, now or when the body has come; the content handler returns what this returns. A
/// body that says that it is too large is not read at all; one in chunks is found to be too large when it is there, for
/// which nginx's `client_max_body_size` is the bound.
///
/// # Safety
///
/// `r` must be the request that nginx is calling a content handler for.
unsafe fn read<H: Handler>(r: *mut ngx_http_request_t, limit: usize, then: Then) -> ngx_int_t {
    // SAFETY: the request is valid by the duty of the caller.
    if unsafe { (*r).headers_in.content_length_n } > off_t::try_from(limit).unwrap_or(off_t::MAX) {
        // SAFETY: as above.
        let refused = match then(&unsafe { Request::new(r) }, Err(BodyError::TooLarge)) {
            Finish::Reply(response) => response,
            // There is nothing to work on.
            Finish::Work(_) => H::failed(),
        };
        // SAFETY: as above; nothing was sent before.
        return unsafe { send(r, refused) };
    }
    // SAFETY: as above. Nothing else is kept with the request before its body is there. nginx counts one more user of
    // the request, whom `ready` takes away by finalizing it.
    let code = unsafe {
        let Some(waiting) = pool_value((*r).pool, Waiting { limit, then: Some(then) }) else {
            return NGX_ERROR as ngx_int_t;
        };
        set_ctx_of_request(r, waiting);
        ngx_http_read_client_request_body(r, Some(ready::<H>))
    };
    if code >= NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t { code } else { NGX_DONE as ngx_int_t }
}

/// Called by nginx in the worker when the body is there: at once, or from a later event.
unsafe extern "C" fn ready<H: Handler>(r: *mut ngx_http_request_t) {
    // SAFETY: nginx calls with the request whose body it read, with which `read` left what is to be done, and which lives
    // until it is finalized.
    unsafe {
        let waiting = ctx_of_request::<Waiting>(r).map(|mut waiting| waiting.as_mut());
        let then = waiting.and_then(|waiting| Some((waiting.limit, waiting.then.take()?)));
        let code = match then {
            Some((limit, then)) => guarded::<H>(r, || work::begin::<H>(r, limit, then)),
            None => NGX_ERROR as ngx_int_t,
        };
        ngx_http_finalize_request(r, code);
    }
}
