//! Settings of the http block, and `upstream_control_zone`: the least size of the module's own shared zone.

use std::ffi::{c_char, c_void};
use std::fmt;
use std::ptr::NonNull;

use nginx_sys::{NGX_ERROR, ngx_command_t, ngx_conf_t, ngx_pagesize, ngx_parse_size};

use crate::nginx::conf::{self, CONF_ERROR, CONF_OK};
use crate::nginx::log::Log;

use super::warnings::ControlLocation;

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

    /// Size of the module's zone, in bytes: at least what the configuration needs, in `servers` servers. A zone that is
    /// there is never made smaller: it would be another one.
    ///
    /// # Safety
    ///
    /// Called while the configuration is read.
    pub unsafe fn zone_size(
        &self,
        cf: NonNull<ngx_conf_t>,
        (servers, needed): (usize, usize),
        present: Option<usize>,
    ) -> usize {
        let present = present.unwrap_or(0);
        // SAFETY: see above; the log of a configuration that is read lives.
        let log = unsafe { Log::from_raw((*cf.as_ptr()).log) };
        if let Some(log) = log.filter(|_| self.size > 0) {
            let given = Size(self.size);
            if self.size < needed {
                log.warn(format_args!(
                    "\"upstream_control_zone {given}\" is less than {}, which the module takes for {servers} server(s)",
                    Size(needed),
                ));
            } else if self.size < present {
                log.notice(format_args!(
                    "the module's zone stays at {} until nginx starts anew, \"upstream_control_zone {given}\" is less",
                    Size(present),
                ));
            }
        }
        self.size.max(needed).max(present)
    }
}

/// A size in bytes, as nginx's directives take it.
pub struct Size(pub usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KILO: usize = 1024;
        const MEGA: usize = KILO * KILO;
        match self.0 {
            size if size.is_multiple_of(MEGA) => write!(f, "{}m", size / MEGA),
            size if size.is_multiple_of(KILO) => write!(f, "{}k", size / KILO),
            size => write!(f, "{size}"),
        }
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

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn a_size_is_written_as_it_is_configured() {
        let table = [(16 << 20, "16m"), (32 << 10, "32k"), ((1 << 20) + 1024, "1025k"), (33_000, "33000")];
        for (size, wanted) in table {
            assert_eq!(Size(size).to_string(), wanted);
        }
    }
}
