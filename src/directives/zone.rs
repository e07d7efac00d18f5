//! Settings of the http block, and `upstream_control_zone`: the size of the module's own shared zone.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

use nginx_sys::{NGX_ERROR, ngx_command_t, ngx_conf_t, ngx_pagesize, ngx_parse_size};

use crate::nginx::conf::{self, CONF_ERROR, CONF_OK};

use super::warnings::ControlLocation;

/// Size of the zone unless it is said, in bytes: room for some 2500 servers.
pub const DEFAULT_SIZE: usize = 1024 * 1024;

/// Pages that the zone must have at least: nginx's own limit for the zones of upstreams.
const PAGES_MIN: usize = 8;

/// Settings of the http block.
#[repr(C)]
#[derive(Default)]
pub struct HttpSettings {
    /// Size of the module's zone, in bytes; 0 if it was not said.
    size: usize,
    /// Servers without a name in which browsers may send changes by any host, as `file:line`.
    nameless: Vec<String>,
    /// The locations that change servers.
    pub(super) controls: Vec<ControlLocation>,
}

impl HttpSettings {
    /// Notes such a server.
    pub(super) fn note_nameless(&mut self, server: String) {
        if !self.nameless.contains(&server) {
            self.nameless.push(server);
        }
    }

    /// What is to be said of such servers at the start.
    pub fn notices(&self) -> impl Iterator<Item = String> {
        self.nameless.iter().map(|server| {
            format!(
                "upstream control: browsers may send changes by any host name, since the server in {server} has no \
                 \"server_name\": name its hosts there or by \"upstream_control_host\""
            )
        })
    }

    /// The locations that change servers.
    pub fn controls(&self) -> &[ControlLocation] {
        &self.controls
    }

    /// Size of the module's zone, in bytes.
    pub fn zone_size(&self) -> usize {
        if self.size == 0 { DEFAULT_SIZE } else { self.size }
    }
}

/// nginx's entry: `upstream_control_zone size;`.
pub(super) unsafe extern "C" fn cmd_http_zone(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let cf = NonNull::new(cf)?;
        // SAFETY: nginx calls this with the settings of the http block, in which these lie at the command's offset.
        Some(unsafe { set(cf, conf.byte_add((*cmd).offset).cast::<HttpSettings>().as_mut()?) })
    })
}

/// Reads the size.
///
/// # Safety
///
/// Called by the directive's handler.
unsafe fn set(cf: NonNull<ngx_conf_t>, settings: &mut HttpSettings) -> *mut c_char {
    if settings.size != 0 {
        return c"is duplicate".as_ptr().cast_mut();
    }
    // SAFETY: see above. nginx's parser of sizes reads the string and nothing else.
    unsafe {
        let args = conf::args(cf);
        let Some(text) = args.get(1) else {
            return CONF_ERROR;
        };
        let mut word = nginx_sys::ngx_str_t { len: text.len(), data: text.as_ptr().cast_mut() };
        let size = ngx_parse_size(&raw mut word);
        let text = String::from_utf8_lossy(text);
        match usize::try_from(size) {
            Ok(size) if size >= PAGES_MIN * (&raw const ngx_pagesize).read() => {
                settings.size = size;
                CONF_OK
            }
            Ok(_) => conf::emerg(cf, &format!("zone size \"{text}\" is too small")),
            Err(_) => {
                debug_assert_eq!(size, NGX_ERROR as isize);
                conf::emerg(cf, &format!("invalid zone size \"{text}\""))
            }
        }
    }
}
