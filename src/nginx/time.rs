//! nginx's clock.

use nginx_sys::ngx_cached_time;

use crate::model::time::UnixTime;

/// The time of the present event, in seconds since the epoch: nginx's `ngx_time()`.
pub fn now() -> UnixTime {
    // SAFETY: nginx sets the pointer before it reads a configuration, always to an element of a static array; only this
    // thread changes it.
    unsafe { ngx_cached_time.as_ref() }.map_or(UnixTime(0), |time| UnixTime(time.sec))
}
