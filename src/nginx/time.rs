//! nginx's clock.

use nginx_sys::{ngx_cached_time, ngx_current_msec};

use crate::model::time::UnixTime;

/// The time of the present event, in seconds since the epoch: nginx's `ngx_time()`.
pub fn now() -> UnixTime {
    // SAFETY: nginx sets the pointer before it reads a configuration, always to an element of a static array; only this
    // thread changes it.
    unsafe { ngx_cached_time.as_ref() }.map_or(UnixTime(0), |time| UnixTime(time.sec))
}

/// nginx's clock of milliseconds, which all processes of a machine read alike and which is never set back: its
/// `ngx_current_msec`.
pub fn msec() -> u64 {
    // SAFETY: a word that only this thread writes.
    unsafe { (&raw const ngx_current_msec).read_volatile() as u64 }
}
