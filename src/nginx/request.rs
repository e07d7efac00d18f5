//! A view of `ngx_http_request_t` for the handlers, which know nothing of nginx's structures.

use std::marker::PhantomData;
use std::ptr;
use std::ptr::NonNull;
use std::slice;

use nginx_sys::{
    NGX_HTTP_DELETE, NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_PATCH, NGX_HTTP_POST, NGX_HTTP_PUT,
    ngx_http_request_t, ngx_list_part_t, ngx_str_t, ngx_table_elt_t, ngx_time, ngx_uint_t,
};

use super::conf::{self, bytes};
use super::log::Log;
use crate::http::Method;
use crate::model::time::UnixTime;

unsafe extern "C" {
    /// The user whose password was checked; 0 if there is none.
    fn nuc_checked_user(r: *mut ngx_http_request_t, user: *mut ngx_str_t) -> ngx_uint_t;
}

/// A request, while a handler is called for it.
pub struct Request<'a> {
    /// nginx's structure.
    raw: NonNull<ngx_http_request_t>,
    /// The call of the handler.
    call: PhantomData<&'a ngx_http_request_t>,
}

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
            Ok(NGX_HTTP_PUT) => Method::Put,
            Ok(NGX_HTTP_PATCH) => Method::Patch,
            Ok(NGX_HTTP_DELETE) => Method::Delete,
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
