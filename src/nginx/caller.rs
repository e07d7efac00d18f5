//! Who calls a function that the module exports: code in nginx's process that nginx does not call through this module,
//! such as a script. It may be serving a request, or none.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use nginx_sys::{ngx_cycle, ngx_http_request_t};

use super::conf::{self, bytes};
use super::handler::words;
use super::log::Log;
use super::request::Request;
use super::time;
use crate::model::time::UnixTime;

/// The caller, while it waits for the function to return.
pub struct Caller<'a> {
    /// The request that it serves.
    request: Option<NonNull<ngx_http_request_t>>,
    /// The call.
    call: PhantomData<&'a ngx_http_request_t>,
}

/// Why a request has no upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProxied {
    /// There is no request.
    Idle,
    /// It is not sent to another server, or not yet.
    Local,
    /// It is sent to an address that belongs to no upstream.
    Nameless,
}

impl Caller<'_> {
    /// Does `work` for a caller. If it panics, that is logged, and the result is `failed`.
    ///
    /// # Safety
    ///
    /// `r` is null, or the request that the caller is serving; this is one of nginx's processes, in its only thread.
    pub unsafe fn serve<T>(r: *mut ngx_http_request_t, failed: T, work: impl FnOnce(&Caller<'_>) -> T) -> T {
        let caller = Caller { request: NonNull::new(r), call: PhantomData };
        catch_unwind(AssertUnwindSafe(|| work(&caller))).unwrap_or_else(|panic| {
            if let Some(log) = caller.log() {
                log.alert(format_args!("upstream control: panic: {}", words(panic.as_ref())));
            }
            failed
        })
    }

    /// The request.
    fn request(&self) -> Option<Request<'_>> {
        // SAFETY: by the duty of `serve` the request is being served, and the view does not outlive the call.
        self.request.map(|r| unsafe { Request::new(r.as_ptr()) })
    }

    /// Address of the client whose request it is; none if there is none. What stands for a request in a timer has the
    /// address of the client that set the timer off, if there was one.
    pub fn client(&self) -> Option<String> {
        self.request().map(|request| request.client()).filter(|client| !client.is_empty())
    }

    /// The log of the request, else that of the configuration.
    pub fn log(&self) -> Option<Log<'_>> {
        // SAFETY: the request is alive, and so are its connection and the log of that.
        let own = self.request.and_then(|r| unsafe {
            r.as_ref().connection.as_ref().and_then(|connection| Log::from_raw(connection.log))
        });
        // SAFETY: nginx replaces the cycle between events only, not during a call.
        own.or_else(|| unsafe { Log::from_cycle(ngx_cycle) })
    }

    /// nginx's idea of the time.
    pub fn now(&self) -> UnixTime {
        time::now()
    }

    /// This module's settings of the http block that runs, or that is being read; none without such a block.
    ///
    /// # Safety
    ///
    /// They are a `T`.
    pub unsafe fn main_conf<T>(&self) -> Option<&T> {
        // SAFETY: nginx has a cycle before it loads any module, and replaces it between events only. Before a
        // configuration is read, it has no settings.
        unsafe {
            if ngx_cycle.is_null() || (*ngx_cycle).conf_ctx.is_null() {
                return None;
            }
            conf::main_conf_of_cycle(ngx_cycle).map(|conf| conf.as_ref())
        }
    }

    /// Name of the upstream that the request is sent to.
    ///
    /// # Errors
    ///
    /// There is no request, or it is sent to none.
    pub fn upstream(&self) -> Result<&[u8], NotProxied> {
        let r = self.request.ok_or(NotProxied::Idle)?;
        // SAFETY: by the duty of `serve` the request is alive, and with it what nginx keeps of its upstream.
        unsafe {
            let upstream = r.as_ref().upstream.as_ref().ok_or(NotProxied::Local)?;
            let us = upstream.upstream.as_ref().ok_or(NotProxied::Nameless)?;
            Ok(bytes(&us.host))
        }
    }
}
