//! What a directive says about the handlers of its location.

use std::rc::Rc;

use crate::model::hosts::Hosts;
use crate::model::server_name::ServerName;

/// Methods by which the servers of an upstream can be changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Methods {
    /// `GET` and `POST`.
    #[default]
    Any,
    /// `POST` only, so that following a link changes nothing: `methods=POST`.
    PostOnly,
}

/// Whose requests a location takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Those of all programs, told apart by their arguments: `upstream_control`.
    #[default]
    Any,
    /// Those of NGINX Plus's directive of the same name: `upstream_conf`.
    UpstreamConf,
}

/// The HTTP status where lua-resty-upstream's API says that a pool or a host is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostErrors {
    /// 500, which its documents say.
    #[default]
    Failed,
    /// 200, which its example sends: `host_errors=200`.
    Ok,
}

/// Which directive a location has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// None of ours.
    #[default]
    None,
    /// `upstream_status`.
    Status,
    /// `upstream_control` or `upstream_conf`.
    Control,
}

/// Settings of a location. The module's location configuration must begin with it, and be `repr(C)`: handlers cast the
/// pointer to that configuration to a pointer to this. nginx does not pass a location's handler on to the locations
/// inside it, but it does to the blocks `if` and `limit_except`, which have settings of their own.
#[repr(C)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which directive it has.
    pub role: Role,
    /// Methods by which the servers of an upstream can be changed.
    pub methods: Methods,
    /// Whose requests they are.
    pub dialect: Dialect,
    /// The status of its errors, in the form of lua-resty-upstream.
    pub host_errors: HostErrors,
    /// The only upstream, beside its pools, that the location knows: `upstream=NAME`. None if it knows all.
    pub upstream: Option<String>,
    /// Where the page of `upstream_status` sends changes: `upstream_status control=/URI`. Without it the page shows, and
    /// changes nothing.
    pub control: Option<String>,
    /// Where the directive of the location stands, as `file:line`.
    pub place: String,
    /// What `upstream_control_host` names, here or around.
    pub named: Vec<ServerName>,
    /// The hosts by which browsers may ask for changes: these, and the names of the server. None of either is any host.
    pub hosts: Rc<Hosts>,
}
