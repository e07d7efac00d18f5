//! `upstream_control_host`: names of hosts by which browsers may send changes, beside those of the server.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::{ngx_command_t, ngx_conf_t, ngx_http_core_srv_conf_t};

use super::HttpSettings;
use crate::forms::{Role, Settings};
use crate::model::hosts::Hosts;
use crate::model::server_name::ServerName;
use crate::nginx::conf::{self, CONF_OK};
use crate::nginx::hosts;

/// nginx's entry: `upstream_control_host NAME..;`.
pub(super) unsafe extern "C" fn cmd_location_host(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let cf = NonNull::new(cf)?;
        // SAFETY: nginx calls this with the settings of the level, in which these lie at the command's offset.
        Some(unsafe { add(cf, conf.byte_add((*cmd).offset).cast::<Settings>().as_mut()?) })
    })
}

/// Adds names to those of this level.
///
/// # Safety
///
/// Called by the directive's handler.
unsafe fn add(cf: NonNull<ngx_conf_t>, settings: &mut Settings) -> *mut c_char {
    // SAFETY: see above.
    for word in unsafe { conf::args(cf) }.iter().skip(1) {
        match name(word) {
            Ok(name) => settings.named.push(name),
            Err(problem) => {
                let word = String::from_utf8_lossy(word);
                // SAFETY: see above.
                return unsafe { conf::emerg(cf, &format!("invalid host \"{word}\": {problem}")) };
            }
        }
    }
    CONF_OK
}

/// The name that a word is; the error is what is wrong with it.
fn name(word: &[u8]) -> Result<ServerName, &'static str> {
    let word = str::from_utf8(word).map_err(|_| "it must be a host name")?;
    if word.starts_with('~') {
        return Err("regular expressions are for \"server_name\"");
    }
    if word.contains([':', '/']) {
        return Err("it must be without scheme, port and path, and addresses need not be named");
    }
    let name = ServerName::parse(word.strip_suffix('.').unwrap_or(word));
    name.ok_or("it must be a host name, or one like \"*.example.com\", \".example.com\" or \"www.example.*\"")
}

/// Settles by which hosts browsers may send changes to a location: what is named here, or else around, and the names of
/// its server.
///
/// # Safety
///
/// Called when nginx merges the settings of `cf`'s location with those around it, whose role is known by now.
pub(super) unsafe fn settle(
    cf: NonNull<ngx_conf_t>,
    http: &mut HttpSettings,
    around: &Settings,
    own: &mut Settings,
) {
    if own.named.is_empty() {
        own.named.clone_from(&around.named);
    }
    if own.role != Role::Control {
        return;
    }
    let mut hosts = Hosts::new(own.named.clone());
    // SAFETY: see above; the settings, which keep the hosts, end with the configuration.
    unsafe {
        if let Some(server) = hosts::server_of(cf) {
            hosts::add(&mut hosts, server);
            if hosts.is_empty() {
                http.note_nameless(place(server));
            }
        }
    }
    own.hosts = Rc::new(hosts);
}

/// Where a server block begins, as nginx writes it.
///
/// # Safety
///
/// The server block is being read.
unsafe fn place(server: NonNull<ngx_http_core_srv_conf_t>) -> String {
    // SAFETY: see above; nginx notes the file, with a zero byte at its end, when the block begins.
    unsafe { conf::place_of(server.as_ref().file_name, server.as_ref().line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for word in ["lb.example", "LB", "*.example.com", ".example.com", "www.example.*", "lb.example.", "_"]
        {
            assert!(name(word.as_bytes()).is_ok(), "{word}");
        }
        assert!(name(b"lb.example.").unwrap().is_of("lb.example"));
        let table: [(&[u8], &str); 8] = [
            (b"", "one like"),
            (b"*", "one like"),
            (b"a*b", "one like"),
            (b"lb:8080", "without scheme, port"),
            (b"http://lb", "without scheme, port"),
            (b"[::1]", "need not be named"),
            (b"~^lb", "regular expressions"),
            (b"\xff", "a host name"),
        ];
        for (word, problem) in table {
            assert!(name(word).unwrap_err().contains(problem), "{word:?}");
        }
    }
}
