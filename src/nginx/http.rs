//! Requests and replies: a view of `ngx_http_request_t` for the handlers, which know nothing of nginx's structures.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::ptr::NonNull;
use std::slice;

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_POST, NGX_OK, ngx_buf_t, ngx_chain_t,
    ngx_http_discard_request_body, ngx_http_output_filter, ngx_http_send_header, ngx_list_part_t,
    ngx_list_push, ngx_pcalloc, ngx_pnalloc, ngx_str_t, ngx_table_elt_t, ngx_time, ngx_uint_t, off_t, u_char,
};

pub use nginx_sys::{ngx_http_request_t, ngx_int_t};

use super::body;
use super::conf::{self, bytes, pool_value};
use super::log::Log;
use super::memory;
use super::pieces;
use crate::http::{BodyError, Method, Pieces, Plain, Response};
use crate::model::time::UnixTime;

pub use super::work::Work;

unsafe extern "C" {
    /// Whether the reply has no body.
    fn nuc_header_only(r: *mut ngx_http_request_t) -> ngx_uint_t;
    /// Whether the head of the reply was sent.
    fn nuc_header_sent(r: *mut ngx_http_request_t) -> ngx_uint_t;
    /// The user whose password was checked; 0 if there is none.
    fn nuc_checked_user(r: *mut ngx_http_request_t, user: *mut ngx_str_t) -> ngx_uint_t;
}

/// What a handler makes of requests. Panics are caught around all of them.
pub trait Handler {
    /// Largest body that is taken, in bytes.
    fn body_limit(request: &Request<'_>) -> usize;

    /// Looks at a request whose body was not read yet.
    fn start(request: &Request<'_>) -> Step;

    /// Answers a request for which [`Handler::start`] asked to read the body.
    fn finish(request: &Request<'_>, body: Vec<u8>) -> Finish;

    /// The reply to such a request whose body is not to be had.
    fn without_body(request: &Request<'_>, error: BodyError) -> Response;

    /// The reply if one of the others panicked.
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
    ReadBody,
}

/// What is to be done with a request whose body is there.
pub enum Finish {
    /// Reply.
    Reply(Response),
    /// Work on it first, in slices between which the worker serves others.
    Work(Box<dyn Work>),
}

/// A request, while a handler is called for it.
pub struct Request<'a> {
    /// nginx's structure.
    raw: NonNull<ngx_http_request_t>,
    /// The call of the handler.
    call: PhantomData<&'a ngx_http_request_t>,
}

// === impl Request ===

impl Request<'_> {
    /// The view of a request.
    ///
    /// # Safety
    ///
    /// `r` must be a request that nginx is calling a handler for, and the view must not be kept after that call.
    pub(super) unsafe fn new(r: *mut ngx_http_request_t) -> Self {
        // SAFETY: nginx calls handlers with a request, never with null.
        let raw = unsafe { NonNull::new_unchecked(r) };
        Self { raw, call: PhantomData }
    }

    /// nginx's structure.
    fn raw(&self) -> &ngx_http_request_t {
        // SAFETY: by the duty of `new` the request is alive, and this thread is the only one to touch it.
        unsafe { self.raw.as_ref() }
    }

    /// The method.
    pub fn method(&self) -> Method {
        match u32::try_from(self.raw().method) {
            Ok(NGX_HTTP_GET) => Method::Get,
            Ok(NGX_HTTP_HEAD) => Method::Head,
            Ok(NGX_HTTP_POST) => Method::Post,
            _ => Method::Other,
        }
    }

    /// Whether nginx itself made the request, for a part of the reply to another one.
    pub fn is_subrequest(&self) -> bool {
        !ptr::eq(self.raw.as_ptr(), self.raw().main)
    }

    /// Whether a proxied reply led here: by `X-Accel-Redirect`, or by `error_page`. nginx keeps what it had for the
    /// upstream until the request ends.
    pub fn is_of_proxied_reply(&self) -> bool {
        !self.raw().upstream.is_null()
    }

    /// The path that was asked for: decoded, with slashes merged and dots resolved as the configuration says, and as
    /// rewrites left it.
    pub fn uri(&self) -> &[u8] {
        // SAFETY: nginx's strings in a request live as long as it.
        unsafe { bytes(&self.raw().uri) }
    }

    /// What follows the `?`, as it came.
    pub fn args(&self) -> &[u8] {
        // SAFETY: nginx's strings in a request live as long as it.
        unsafe { bytes(&self.raw().args) }
    }

    /// Value of the first header of this name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut part: *const ngx_list_part_t = &raw const self.raw().headers_in.headers.part;
        // SAFETY: the parts of the list are in the request's pool, the last one has no next.
        while let Some(current) = unsafe { part.as_ref() } {
            let headers = if current.nelts == 0 {
                &[]
            } else {
                // SAFETY: the elements of this list are headers, as many as `nelts` says.
                unsafe { slice::from_raw_parts(current.elts.cast::<ngx_table_elt_t>(), current.nelts) }
            };
            for header in headers {
                // SAFETY: the strings of a header live as long as the request. A hash of 0 marks a deleted one.
                let (key, value) = unsafe { (bytes(&header.key), bytes(&header.value)) };
                if header.hash != 0 && key.eq_ignore_ascii_case(name.as_bytes()) {
                    return Some(value);
                }
            }
            part = current.next;
        }
        None
    }

    /// The host that was asked for, with its port if the client wrote one.
    pub fn host(&self) -> &[u8] {
        let headers = &self.raw().headers_in;
        // SAFETY: the header, if there is one, is an element of the request's list of headers.
        match unsafe { headers.host.as_ref() } {
            // SAFETY: the strings of a header live as long as the request.
            Some(host) => unsafe { bytes(&host.value) },
            // SAFETY: as above. HTTP/3 has no such header in older nginx.
            None => unsafe { bytes(&headers.server) },
        }
    }

    /// The same as nginx looks servers up by it: in small letters, without port and without a dot at its end.
    pub fn server(&self) -> &[u8] {
        // SAFETY: nginx's strings in a request live as long as it.
        unsafe { bytes(&self.raw().headers_in.server) }
    }

    /// The user whose password `auth_basic` has checked.
    pub fn checked_user(&self) -> Option<String> {
        let mut user = ngx_str_t::empty();
        // SAFETY: the request is alive, and a content handler is called for it; the place is ours to write. The string
        // lives as long as the request.
        unsafe {
            let is_checked = nuc_checked_user(self.raw.as_ptr(), &raw mut user) != 0;
            is_checked.then(|| String::from_utf8_lossy(bytes(&user)).into_owned())
        }
    }

    /// Address of the client, as nginx logs it.
    pub fn client(&self) -> String {
        // SAFETY: a request has a connection for as long as a handler is called for it.
        let text = unsafe {
            self.raw().connection.as_ref().map_or(&[][..], |connection| bytes(&connection.addr_text))
        };
        String::from_utf8_lossy(text).into_owned()
    }

    /// nginx's idea of the time, from the beginning of this round of events.
    pub fn now(&self) -> UnixTime {
        UnixTime(ngx_time())
    }

    /// The connection's log. nginx adds client and request line to its messages.
    pub fn log(&self) -> Option<Log<'_>> {
        // SAFETY: the connection and its log live at least as long as this view.
        unsafe { self.raw().connection.as_ref().and_then(|connection| Log::from_raw(connection.log)) }
    }

    /// This module's configuration of the http block.
    ///
    /// # Safety
    ///
    /// That configuration must begin with a `T`.
    pub unsafe fn main_conf<T>(&self) -> Option<&T> {
        // SAFETY: the request is alive, and so is its cycle with all settings; the rest is the duty of the caller.
        unsafe { conf::main_conf_of_request(self.raw.as_ptr()).map(|conf| conf.as_ref()) }
    }

    /// This module's configuration of the location.
    ///
    /// # Safety
    ///
    /// That configuration must begin with a `T`.
    pub unsafe fn loc_conf<T>(&self) -> Option<&T> {
        // SAFETY: the request is alive, and so is its cycle with all settings; the rest is the duty of the caller.
        unsafe { conf::loc_conf_of_request(self.raw.as_ptr()).map(|conf| conf.as_ref()) }
    }
}

// === serving ===

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
            Step::ReadBody => body::read::<H>(r),
        })
    }
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
    if unsafe { nuc_header_sent(r) } != 0 {
        return error;
    }
    // SAFETY: as above, and nothing was sent yet.
    catch_unwind(AssertUnwindSafe(|| unsafe { send(r, H::failed()) })).unwrap_or(error)
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

// === sending ===

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
