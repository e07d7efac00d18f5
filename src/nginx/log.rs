//! nginx's error log.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_LOG_ALERT, NGX_LOG_ERR, NGX_LOG_INFO, NGX_LOG_NOTICE, NGX_LOG_WARN, ngx_cycle, ngx_cycle_t,
    ngx_log_t, ngx_uint_t,
};

use crate::model::log::{Level, escaped};

/// nginx's number of a level; larger is less grave.
fn number(level: Level) -> ngx_uint_t {
    let number = match level {
        Level::Alert => NGX_LOG_ALERT,
        Level::Error => NGX_LOG_ERR,
        Level::Warn => NGX_LOG_WARN,
        Level::Notice => NGX_LOG_NOTICE,
        Level::Info => NGX_LOG_INFO,
    };
    // A level is at most 8.
    number as ngx_uint_t
}

/// A log, while what it belongs to lives. A request's log adds the client and the request line to each message.
#[derive(Clone, Copy)]
pub struct Log<'a> {
    /// nginx's structure.
    raw: NonNull<ngx_log_t>,
    /// The request or the cycle that it belongs to.
    owner: PhantomData<&'a ngx_log_t>,
}

impl<'a> Log<'a> {
    /// The view of a log; `None` for a null pointer.
    ///
    /// # Safety
    ///
    /// `raw` must be null or a log that lives for `'a`.
    pub unsafe fn from_raw(raw: *mut ngx_log_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, owner: PhantomData })
    }

    /// The log of a cycle; `None` if there is none yet.
    ///
    /// # Safety
    ///
    /// `cycle` must be null or a cycle that lives for `'a`.
    pub unsafe fn from_cycle(cycle: *const ngx_cycle_t) -> Option<Self> {
        // SAFETY: by the duty of the caller the cycle is readable; nginx sets its log before it calls any module.
        unsafe { cycle.as_ref().and_then(|cycle| Self::from_raw(cycle.log)) }
    }

    /// The log of the configuration that this process runs, for the present event; `None` if there is none yet.
    pub fn of_process() -> Option<Self> {
        // SAFETY: a configuration lives at least as long as an event that is handled under it.
        unsafe { Self::from_cycle((&raw const ngx_cycle).read()) }
    }

    /// nginx's structure, for what nginx itself is to log.
    pub(super) fn as_ptr(self) -> *mut ngx_log_t {
        self.raw.as_ptr()
    }

    /// Whether the log takes messages of this level.
    pub fn takes(self, level: Level) -> bool {
        // SAFETY: the log lives for `'a`, and nginx writes to it from this thread only.
        number(level) <= unsafe { (*self.raw.as_ptr()).log_level }
    }

    /// Writes a message if the log takes messages of this level. nginx cuts it after some 2000 bytes. Control
    /// characters are escaped, so that nobody can forge a line.
    pub fn write(self, level: Level, message: impl fmt::Display) {
        if !self.takes(level) {
            return;
        }
        let raw = self.raw.as_ptr();
        let message = message.to_string();
        let message = escaped(&message);
        // SAFETY: the log lives for `'a`; nginx copies the bytes before it returns. No lock is held here, as the rooms
        // that hold locks do not log.
        unsafe { ngx::log::log_error(number(level), raw, 0, message.as_bytes()) };
    }

    /// Writes an error without memory of the heap.
    pub fn error_without_memory(self, message: &'static str) {
        if self.takes(Level::Error) {
            let (level, raw) = (number(Level::Error), self.raw.as_ptr());
            // SAFETY: as in `write`.
            unsafe { ngx::log::log_error(level, raw, 0, message.as_bytes()) };
        }
    }

    /// Writes a message of level `alert`.
    pub fn alert(self, message: impl fmt::Display) {
        self.write(Level::Alert, message);
    }

    /// Writes a message of level `warn`.
    pub fn warn(self, message: impl fmt::Display) {
        self.write(Level::Warn, message);
    }

    /// Writes a message of level `notice`.
    pub fn notice(self, message: impl fmt::Display) {
        self.write(Level::Notice, message);
    }
}
