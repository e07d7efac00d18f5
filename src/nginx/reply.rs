//! Sending replies.

use std::ptr;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_ERROR, NGX_OK, ngx_buf_t, ngx_chain_t, ngx_http_discard_request_body, ngx_http_output_filter,
    ngx_http_request_t, ngx_http_send_header, ngx_int_t, ngx_list_push, ngx_pcalloc, ngx_pnalloc, ngx_str_t,
    ngx_table_elt_t, ngx_uint_t, off_t, u_char,
};

use super::conf::pool_value;
use super::request::Request;
use crate::http::{Plain, Response};

unsafe extern "C" {
    /// Whether the reply has no body.
    fn nuc_header_only(r: *mut ngx_http_request_t) -> ngx_uint_t;
    /// Whether the head of the reply was sent.
    fn nuc_header_sent(r: *mut ngx_http_request_t) -> ngx_uint_t;
}

/// Whether the head of the reply was sent.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for.
pub(super) unsafe fn is_begun(r: *mut ngx_http_request_t) -> bool {
    // SAFETY: the duty of the caller.
    unsafe { nuc_header_sent(r) != 0 }
}

/// Sends a reply and returns what a content handler is to return. A body that was not read is thrown away.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for, to which nothing was sent yet.
pub(super) unsafe fn send(r: *mut ngx_http_request_t, response: Response) -> ngx_int_t {
    let length = off_t::try_from(response.body.len()).unwrap_or(off_t::MAX);
    // SAFETY: the duty of the caller.
    if let Err(code) = unsafe { send_head(r, &response, length) } {
        return code;
    }
    let body = response.body;
    if body.is_empty() {
        // SAFETY: likewise.
        return unsafe { send_body(r, ptr::null_mut(), 0) };
    }
    let length = body.len();
    // SAFETY: likewise. The bytes stay where they are when the pool gets their `Vec`.
    match unsafe { pool_value((*r).pool, body) } {
        // SAFETY: likewise; the pool lives as long as the request.
        Some(mut body) => unsafe { send_body(r, body.as_mut().as_mut_ptr(), length) },
        None => NGX_ERROR as ngx_int_t,
    }
}

/// The same without memory of the heap, when there is none: that is logged.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for, to which nothing was sent yet.
pub(super) unsafe fn send_plain(r: *mut ngx_http_request_t, plain: Plain) -> ngx_int_t {
    let Plain { status, content_type, headers, body } = plain;
    // SAFETY: the duty of the caller.
    if let Some(log) = unsafe { Request::new(r) }.log() {
        log.error_without_memory("upstream control: no memory left, a request is refused");
    }
    // An empty list takes none.
    let response = Response { status, content_type, headers: Vec::new(), body: Vec::new() };
    for (name, value) in headers {
        // SAFETY: likewise.
        if unsafe { push_header(r, name, value) }.is_none() {
            return NGX_ERROR as ngx_int_t;
        }
    }
    // SAFETY: likewise.
    match unsafe { send_head(r, &response, off_t::try_from(body.len()).unwrap_or(off_t::MAX)) } {
        // SAFETY: likewise; nginx only reads the bytes, which are static.
        Ok(()) => unsafe { send_body(r, body.as_ptr().cast_mut(), body.len()) },
        Err(code) => code,
    }
}

/// Sends all but the body of a reply; `length` is that of the body, or -1. The error is what a content handler is to
/// return if that was all, or failed.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for, to which nothing was sent yet.
pub(super) unsafe fn send_head(
    r: *mut ngx_http_request_t,
    response: &Response,
    length: off_t,
) -> Result<(), ngx_int_t> {
    let (ok, error) = (NGX_OK as ngx_int_t, NGX_ERROR as ngx_int_t);
    // SAFETY: the request is valid by the duty of the caller, here and below. It is lent to nginx only while no Rust
    // reference to it exists.
    let code = unsafe { ngx_http_discard_request_body(r) };
    if code != ok {
        return Err(code);
    }
    let content_type = static_str(response.content_type);
    // SAFETY: as above; the content type is static, which nginx only reads.
    unsafe {
        let out = &mut (*r).headers_out;
        out.status = ngx_uint_t::from(response.status);
        out.content_length_n = length;
        out.content_type = content_type;
        // nginx adds a charset only if this length is the whole length.
        out.content_type_len = content_type.len;
        out.content_type_lowcase = ptr::null_mut();
    }
    for (name, value) in &response.headers {
        // SAFETY: as above.
        unsafe { push_header(r, name, value) }.ok_or(error)?;
    }
    // SAFETY: as above.
    let code = unsafe { ngx_http_send_header(r) };
    // SAFETY: as above.
    if code == error || code > ok || unsafe { nuc_header_only(r) } != 0 { Err(code) } else { Ok(()) }
}

/// Adds a header to the reply; `None` if there is no memory.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for.
unsafe fn push_header(r: *mut ngx_http_request_t, name: &'static str, value: &str) -> Option<()> {
    // SAFETY: the request and its pool are valid by the duty of the caller; there is room for `value.len()` bytes.
    unsafe {
        let data = NonNull::new(ngx_pnalloc((*r).pool, value.len().max(1)).cast::<u_char>())?;
        ptr::copy_nonoverlapping(value.as_ptr(), data.as_ptr(), value.len());
        let header =
            NonNull::new(ngx_list_push(&raw mut (*r).headers_out.headers).cast::<ngx_table_elt_t>())?;
        // nginx does not clear the element, and which fields it has depends on the version of nginx.
        header.as_ptr().write_bytes(0, 1);
        let header = &mut *header.as_ptr();
        // Any number but 0, which marks a header that is not to be sent.
        header.hash = 1;
        header.key = static_str(name);
        header.value = ngx_str_t { len: value.len(), data: data.as_ptr() };
    }
    Some(())
}

/// Sends a body that lives as long as the request, in one buffer.
///
/// # Safety
///
/// `r` must be a request that nginx is calling a handler for, whose head was sent. `start` points to as many bytes, or is
/// null with 0 of them.
unsafe fn send_body(r: *mut ngx_http_request_t, start: *mut u8, length: usize) -> ngx_int_t {
    // SAFETY: the request and its pool are valid by the duty of the caller. nginx only reads the bytes, and copies the
    // links that it keeps.
    unsafe {
        let is_main = ptr::eq(r, (*r).main);
        let buf = ngx_pcalloc((*r).pool, size_of::<ngx_buf_t>()).cast::<ngx_buf_t>();
        let Some(buf) = buf.as_mut() else { return NGX_ERROR as ngx_int_t };
        if length > 0 {
            (buf.start, buf.pos) = (start, start);
            (buf.last, buf.end) = (start.add(length), start.add(length));
            buf.set_memory(1);
        }
        buf.set_last_buf(u32::from(is_main));
        buf.set_last_in_chain(1);
        // A buffer with nothing in it at all would be an alert; one that ends the reply is not empty in that sense.
        buf.set_sync(u32::from(!is_main && buf.memory() == 0));
        let mut chain = ngx_chain_t { buf, next: ptr::null_mut() };
        ngx_http_output_filter(r, &raw mut chain)
    }
}

/// A static text as a string of nginx's, which must only be read.
fn static_str(text: &'static str) -> ngx_str_t {
    ngx_str_t { len: text.len(), data: text.as_ptr().cast_mut() }
}
