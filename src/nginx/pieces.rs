//! Replies that are made while the client reads them.
//!
//! A piece is made when nginx's filters have taken the one before, and nginx's other events have their turn in between:
//! a long reply holds up nobody, and one that is read slowly costs one piece and what it is made of. nginx ends it after
//! `send_timeout`, and the request's pool frees it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_AGAIN, NGX_DONE, NGX_ERROR, NGX_OK, ngx_buf_t, ngx_chain_t, ngx_http_finalize_request,
    ngx_http_output_filter, ngx_http_request_t, ngx_int_t, ngx_pcalloc,
};

use super::conf::{ctx_of_request, pool_value, set_ctx_of_request};
use super::handler::report;
use super::memory;
use super::reply::send_head;
use super::request::Request;
use crate::http::{Pieces, Response};

unsafe extern "C" {
    /// Counts one more user of the request, whom `NGX_DONE` takes away, and looks out for a client that leaves.
    fn nuc_hold(r: *mut ngx_http_request_t);
    /// Whether the client may be sent more now: `NGX_OK`, `NGX_AGAIN`, or what the request is to be finalized with.
    fn nuc_may_write(r: *mut ngx_http_request_t) -> ngx_int_t;
    /// Has the write handler called when the client takes more.
    fn nuc_wait(r: *mut ngx_http_request_t) -> ngx_int_t;
    /// Has the write handler called after other events had their turn.
    fn nuc_yield(r: *mut ngx_http_request_t) -> ngx_int_t;
}

/// A reply under way. It is in the request's pool.
struct Stream {
    /// What is to be sent yet; none when the last piece was made.
    rest: Option<Box<dyn Pieces>>,
    /// The present piece.
    piece: Vec<u8>,
    /// nginx's view of it, used for one piece after the other.
    buf: NonNull<ngx_buf_t>,
}

/// Sends the beginning of a reply and returns what a content handler is to return; the write handler does the rest.
///
/// # Safety
///
/// `r` must be the request that nginx is calling a content handler for, to which nothing was sent yet.
pub(super) unsafe fn send(
    r: *mut ngx_http_request_t,
    response: Response,
    rest: Box<dyn Pieces>,
) -> ngx_int_t {
    let error = NGX_ERROR as ngx_int_t;
    // SAFETY: the duty of the caller, here and below.
    if let Err(code) = unsafe { send_head(r, &response, -1) } {
        return code;
    }
    // SAFETY: as above; the pool lives as long as the request, and is told of all that this module frees.
    let stream = unsafe {
        NonNull::new(ngx_pcalloc((*r).pool, size_of::<ngx_buf_t>()).cast::<ngx_buf_t>())
            .and_then(|buf| pool_value((*r).pool, Stream { rest: Some(rest), piece: response.body, buf }))
    };
    let Some(mut stream) = stream else { return error };
    // SAFETY: as above; only this function and `go_on` know the stream, and nginx calls neither from within the other.
    unsafe {
        if stream.as_mut().output(r) == error {
            return error;
        }
        set_ctx_of_request(r, stream);
        (*r).write_event_handler = Some(go_on);
        nuc_hold(r);
        stream.as_ref().pause(r).unwrap_or(NGX_DONE as ngx_int_t)
    }
}

/// nginx's entry: the client takes more, or has taken nothing for too long, or other events had their turn.
unsafe extern "C" fn go_on(r: *mut ngx_http_request_t) {
    // SAFETY: nginx calls write handlers with a request that lives until it is finalized.
    let code = catch_unwind(AssertUnwindSafe(|| unsafe { resume(r) })).unwrap_or_else(|panic| {
        // SAFETY: as above.
        unsafe { report(r, panic.as_ref()) };
        Some(NGX_ERROR as ngx_int_t)
    });
    if let Some(code) = code {
        // SAFETY: as above; nobody here uses it after this.
        unsafe { ngx_http_finalize_request(r, code) };
    }
}

/// Sends the next piece if the one before is taken. What the request is to be finalized with, if that is due.
///
/// # Safety
///
/// nginx is calling the write handler of `r`, to which [`send`] sent the beginning of a reply.
unsafe fn resume(r: *mut ngx_http_request_t) -> Option<ngx_int_t> {
    let (ok, again, error) = (NGX_OK as ngx_int_t, NGX_AGAIN as ngx_int_t, NGX_ERROR as ngx_int_t);
    // SAFETY: `send` left a stream there, in the request's pool; nobody else uses it.
    let Some(stream) = (unsafe { ctx_of_request::<Stream>(r).map(|mut stream| stream.as_mut()) }) else {
        return Some(error);
    };
    // SAFETY: the duty of the caller, here and below.
    match unsafe { nuc_may_write(r) } {
        code if code == ok => {}
        // SAFETY: as above.
        code if code == again => return checked(unsafe { nuc_wait(r) }),
        code => return Some(code),
    }
    // SAFETY: as above; no link is given, so that nginx goes on with what it has.
    if !stream.is_taken() && unsafe { ngx_http_output_filter(r, ptr::null_mut()) } == error {
        return Some(error);
    }
    if stream.is_taken() {
        if !memory::is_left() {
            // SAFETY: as above.
            if let Some(log) = unsafe { Request::new(r) }.log() {
                log.error_without_memory("upstream control: no memory left, a reply is cut");
            }
            return Some(error);
        }
        stream.advance();
        // SAFETY: as above; nobody refers to the bytes of the piece before.
        let code = unsafe { stream.output(r) };
        if code == error || stream.rest.is_none() {
            return Some(code);
        }
    }
    // SAFETY: as above.
    unsafe { stream.pause(r) }
}

/// What the request is to be finalized with, if a call of nginx's failed.
fn checked(code: ngx_int_t) -> Option<ngx_int_t> {
    (code == NGX_ERROR as ngx_int_t).then_some(code)
}

// === impl Stream ===

impl Stream {
    /// Whether nginx's filters need nothing of the present piece any more.
    fn is_taken(&self) -> bool {
        // SAFETY: the buffer is in the same pool, and nginx is not using it now.
        let buf = unsafe { self.buf.as_ref() };
        buf.pos == buf.last
    }

    /// Makes the next piece.
    fn advance(&mut self) {
        self.piece.clear();
        if !self.rest.as_mut().is_some_and(|rest| rest.next(&mut self.piece)) {
            self.rest = None;
        }
    }

    /// Gives the present piece to nginx's filters.
    ///
    /// # Safety
    ///
    /// The stream is that of `r`, which is alive, and no filter has the piece yet, or needs that before it.
    unsafe fn output(&mut self, r: *mut ngx_http_request_t) -> ngx_int_t {
        let bytes = self.piece.as_mut_ptr_range();
        let is_last = self.rest.is_none();
        // SAFETY: the buffer is in the request's pool, as is the piece, which does not move before all of it is taken;
        // nginx only reads it, and copies the links that it keeps.
        unsafe {
            let is_main = ptr::eq(r, (*r).main);
            let buf = self.buf.as_mut();
            (buf.start, buf.pos, buf.last, buf.end) = (bytes.start, bytes.start, bytes.end, bytes.end);
            buf.set_memory(u32::from(bytes.start != bytes.end));
            buf.set_last_buf(u32::from(is_last && is_main));
            buf.set_last_in_chain(u32::from(is_last));
            // As in every reply: a buffer with nothing in it at all would be an alert.
            buf.set_sync(u32::from(buf.memory() == 0 && buf.last_buf() == 0));
            let mut chain = ngx_chain_t { buf: self.buf.as_ptr(), next: ptr::null_mut() };
            ngx_http_output_filter(r, &raw mut chain)
        }
    }

    /// Sees to it that the write handler is called when the next piece is due. What the request is to be finalized
    /// with, if that fails.
    ///
    /// # Safety
    ///
    /// The stream is that of `r`, which is alive, and whose write handler is set.
    unsafe fn pause(&self, r: *mut ngx_http_request_t) -> Option<ngx_int_t> {
        // SAFETY: the duty of the caller.
        checked(if self.is_taken() { unsafe { nuc_yield(r) } } else { unsafe { nuc_wait(r) } })
    }
}
