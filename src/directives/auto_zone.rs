//! `upstream_auto_zone`: a zone for an upstream, named as the upstream.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

use nginx_sys::{ngx_command_t, ngx_conf_t};

use crate::nginx::conf::{self, CONF_ERROR};
use crate::nginx::{command, upstream};

use super::UpstreamSettings;

/// nginx's entry: `upstream_auto_zone size;`.
pub(super) unsafe extern "C" fn cmd_upstream_auto_zone(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let cf = NonNull::new(cf)?;
        // SAFETY: nginx calls this with the settings of the upstream block, in which these lie at the command's offset.
        unsafe { set(cf, conf.byte_add((*cmd).offset).cast::<UpstreamSettings>().as_mut()?) }
    })
}

/// Does what `zone NAME size;` does in the upstream's block, with the upstream's name. None if nginx has no such block
/// or no memory.
///
/// # Safety
///
/// Called by the directive's handler.
unsafe fn set(cf: NonNull<ngx_conf_t>, settings: &mut UpstreamSettings) -> Option<*mut c_char> {
    // SAFETY: see above; nginx's own `zone` could stand in the place of this directive.
    unsafe {
        let conf = cf.as_ptr();
        let upstream = upstream::present(cf)?;
        if !settings.auto_zone.is_null() {
            return Some(c"is duplicate".as_ptr().cast_mut());
        }
        if !upstream.shm_zone().is_null() {
            return Some(c"is duplicate, the upstream has a \"zone\"".as_ptr().cast_mut());
        }
        let module = command::find_module(conf, c"ngx_http_upstream_zone_module");
        let Some((module, zone)) =
            module.and_then(|module| Some((module, command::find_command(module, "zone")?)))
        else {
            return Some(conf::emerg(cf, "this nginx was built without the \"zone\" directive"));
        };
        let args = conf::args(cf);
        let Some(size) = args.get(1) else {
            return Some(CONF_ERROR);
        };
        let size = String::from_utf8_lossy(size);
        let words = ["zone", &upstream.name(), &size];
        let result = command::run(conf, module, zone, conf::context(cf)?.as_ptr(), &words)?;
        settings.auto_zone = upstream.shm_zone();
        Some(result)
    }
}
