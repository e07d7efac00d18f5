//! What is likely not as somebody meant it, said once when the configuration is read.

use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_GET, NGX_HTTP_POST, ngx_conf_t, ngx_http_core_loc_conf_t, ngx_http_core_srv_conf_t,
};

use crate::forms::{Methods, Settings};
use crate::handlers::ngx_http_upstream_control_handler;
use crate::nginx::access::{Access, LocConf};
use crate::nginx::{conf, hosts, listen, upstream};
use crate::ops::Guard;

/// A location with `upstream_control` or `upstream_conf`.
pub struct ControlLocation {
    /// Where the directive stands.
    place: String,
    /// Methods by which servers can be changed.
    methods: Methods,
    /// The core's settings of it.
    core: NonNull<ngx_http_core_loc_conf_t>,
    /// The settings of all modules.
    settings: LocConf,
    /// Its server.
    server: NonNull<ngx_http_core_srv_conf_t>,
}

impl ControlLocation {
    /// The location whose settings are merged. None if nginx does not say where it is.
    ///
    /// # Safety
    ///
    /// Called when nginx merges the settings of `cf`'s location.
    pub(super) unsafe fn present(cf: NonNull<ngx_conf_t>, settings: &Settings) -> Option<Self> {
        // SAFETY: see above.
        unsafe {
            Some(Self {
                place: settings.place.clone(),
                methods: settings.methods,
                core: NonNull::new(conf::core_loc_conf(cf)?)?,
                settings: (*conf::context(cf)?.as_ptr()).loc_conf,
                server: hosts::server_of(cf)?,
            })
        }
    }

    /// Whether another directive gave the location another content handler later.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`.
    unsafe fn is_taken(&self) -> bool {
        // SAFETY: the settings live while the configuration does.
        let present = unsafe { self.core.as_ref() }.handler;
        let own: conf::ContentHandler = ngx_http_upstream_control_handler;
        present.is_none_or(|present| !ptr::fn_addr_eq(present, own))
    }

    /// Whether other machines may change servers, and nothing is seen that keeps them away.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`.
    unsafe fn is_open(&self, cf: NonNull<ngx_conf_t>, access: &Access) -> bool {
        let methods: &[u32] = match self.methods {
            Methods::Any => &[NGX_HTTP_GET, NGX_HTTP_POST],
            Methods::PostOnly => &[NGX_HTTP_POST],
        };
        // SAFETY: see above. nginx switches to the settings of `limit_except` for methods that it names.
        unsafe {
            let core = self.core.as_ref();
            listen::is_public(cf, self.server)
                && methods.iter().any(|method| {
                    let is_other = core.limit_except & method != 0 && !core.limit_except_loc_conf.is_null();
                    let settings = if is_other { core.limit_except_loc_conf } else { self.settings };
                    access.is_open(settings, self.server)
                })
        }
    }
}

/// Warns of locations that change servers: of those that another directive took, of those that are open to everybody, and
/// if there is nothing to change.
///
/// # Safety
///
/// Called in `postconfiguration`, with the locations of the http block.
pub unsafe fn warn_of_locations(cf: NonNull<ngx_conf_t>, locations: &[ControlLocation]) {
    // SAFETY: see above.
    unsafe {
        let Some(first) = locations.first() else { return };
        let access = Access::ask(cf);
        for location in locations {
            if location.is_taken() {
                let message =
                    "\"upstream_control\" is without effect: a later directive of the location took it";
                conf::warn_at(cf, &location.place, message);
            } else if location.is_open(cf, &access) {
                let message = "\"upstream_control\" is open to everybody: restrict it by \"allow\" and \"deny\", \
                               \"auth_basic\", or a \"listen\" on 127.0.0.1";
                conf::warn_at(cf, &location.place, message);
            }
        }
        if upstream::all(cf).iter().all(|upstream| upstream.is_implicit() || upstream.zone().is_none()) {
            let message = "\"upstream_control\" has nothing to change: no upstream has a \"zone\"";
            conf::warn_at(cf, &first.place, message);
        }
    }
}

/// Warns of a guard that refuses each change that takes a server away.
///
/// # Safety
///
/// Called in `postconfiguration`.
pub unsafe fn warn_of_guard(cf: NonNull<ngx_conf_t>, upstream: upstream::Upstream, guard: Guard) {
    let Guard::Servers(min) = guard else { return };
    let servers = upstream.configured();
    // How many there will be is not known of a name that nginx resolves at run time.
    if servers.iter().flat_map(|server| &server.names).any(String::is_empty) {
        return;
    }
    let count: usize = servers.iter().filter(|server| !server.down).map(|server| server.names.len()).sum();
    if count < min {
        let servers = if count == 1 { "server" } else { "servers" };
        let message = format!(
            "upstream \"{}\" has {count} usable {servers}, and \"upstream_guard min={min}\": none can be taken away \
             without \"force=\"",
            upstream.name()
        );
        // SAFETY: see above.
        unsafe { conf::warn_at(cf, &upstream.place(), &message) };
    }
}
