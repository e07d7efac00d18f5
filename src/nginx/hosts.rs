//! The hosts by which browsers may ask for a location.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use nginx_sys::{ngx_conf_t, ngx_http_core_module, ngx_http_core_srv_conf_t, ngx_str_t, ngx_uint_t};

use super::conf::{bytes, context};
use crate::model::hosts::{Hosts, Pattern};
use crate::model::server_name::ServerName;

unsafe extern "C" {
    /// A name of a server block, and its regular expression or null; 0 after the last.
    fn nuc_server_name(
        cscf: *mut ngx_http_core_srv_conf_t,
        n: ngx_uint_t,
        name: *mut ngx_str_t,
        regex: *mut *mut c_void,
    ) -> ngx_uint_t;
    /// Whether a text matches.
    fn nuc_regex_matches(regex: *mut c_void, text: *mut ngx_str_t) -> ngx_uint_t;
}

/// A regular expression of a server block, which nginx has compiled.
#[derive(Debug)]
struct Regex(NonNull<c_void>);

impl Pattern for Regex {
    fn matches(&self, host: &str) -> bool {
        let mut text = ngx_str_t { len: host.len(), data: host.as_ptr().cast_mut() };
        // SAFETY: the expression lives by the duty of `add`'s caller, and the text is only read.
        unsafe { nuc_regex_matches(self.0.as_ptr(), &raw mut text) != 0 }
    }
}

/// Adds the names of a server block.
///
/// # Safety
///
/// Called when settings are merged, with the server block of [`server_of`]; the hosts must not be kept longer than the
/// configuration.
pub unsafe fn add(hosts: &mut Hosts, server: NonNull<ngx_http_core_srv_conf_t>) {
    let (mut name, mut regex) = (ngx_str_t::empty(), ptr::null_mut());
    let mut n = 0;
    // SAFETY: the list of names lives while settings are merged; both places are ours to write.
    while unsafe { nuc_server_name(server.as_ptr(), n, &raw mut name, &raw mut regex) } != 0 {
        n += 1;
        // SAFETY: a name points to its bytes.
        let word = str::from_utf8(unsafe { bytes(&name) }).ok();
        match NonNull::new(regex) {
            Some(regex) => hosts.add_pattern(Rc::new(Regex(regex))),
            None => word.and_then(ServerName::parse).into_iter().for_each(|name| hosts.add(name)),
        }
    }
}

/// The server block in which settings are merged.
///
/// # Safety
///
/// Called when settings are merged.
pub unsafe fn server_of(cf: NonNull<ngx_conf_t>) -> Option<NonNull<ngx_http_core_srv_conf_t>> {
    // SAFETY: while nginx merges settings its context has those of the server block, the core's among them.
    unsafe {
        let index = (&raw const ngx_http_core_module.ctx_index).read();
        NonNull::new((*(*context(cf)?.as_ptr()).srv_conf.add(index)).cast())
    }
}
