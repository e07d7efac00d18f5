//! The directives: from nginx.conf to checked settings.
//!
//! | directive | context | file |
//! |---|---|---|
//! | `upstream_status [control=/URI]` | location | `location.rs` |
//! | `upstream_control [methods=POST] [upstream=NAME] [host_errors=200]` | location | `location.rs` |
//! | `upstream_conf [methods=POST]` | location | `location.rs` |
//! | `upstream_control_host NAME..` | http, server, location | `hosts.rs` |
//! | `upstream_dynamic on \| off` | http, upstream | `upstream.rs` |
//! | `upstream_guard min=N \| min=N% \| off` | http, upstream | `upstream.rs` |
//! | `upstream_capacity N` | http, upstream | `upstream.rs` |
//! | `upstream_auto_zone size` | upstream | `auto_zone.rs` |
//! | `pool NAME [priority=N] [failback=TIME]` | upstream | `pools.rs` |
//! | `upstream_control_zone size` | http | `zone.rs` |

mod auto_zone;
mod hosts;
mod location;
mod pools;
mod upstream;
mod warnings;
mod zone;

use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_FLAG, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_CONF_TAKE2, NGX_CONF_TAKE3,
    NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET,
    NGX_HTTP_SRV_CONF, NGX_HTTP_SRV_CONF_OFFSET, NGX_HTTP_UPS_CONF, ngx_command_t, ngx_conf_t, ngx_str_t,
    ngx_uint_t,
};

use std::ffi::{c_char, c_void};

pub use location::inherit;
pub use pools::Candidate as PoolCandidate;
pub use upstream::UpstreamSettings;
pub use warnings::{warn_of_guard, warn_of_locations};
pub use zone::HttpSettings;

/// Where the settings of this room lie within those of the module, in bytes.
pub struct Offsets {
    /// [`HttpSettings`] within the main settings.
    pub http: usize,
    /// [`UpstreamSettings`] within the settings of an upstream.
    pub upstream: usize,
    /// [`crate::forms::Settings`] within the settings of a location.
    pub location: usize,
}

/// nginx's type of a directive's handler.
type Handler = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

/// How many directives there are, with the empty one that ends the table.
pub const COMMANDS: usize = 11;

/// The command table.
pub const fn commands(offsets: &Offsets) -> [ngx_command_t; COMMANDS] {
    let (http, upstream, location) = (NGX_HTTP_MAIN_CONF, NGX_HTTP_UPS_CONF, NGX_HTTP_LOC_CONF);
    let server = NGX_HTTP_SRV_CONF;
    [
        command(
            c"upstream_status",
            location | NGX_CONF_NOARGS | NGX_CONF_TAKE1,
            location::cmd_location_status,
            NGX_HTTP_LOC_CONF_OFFSET,
            offsets.location,
        ),
        command(
            c"upstream_control",
            location | NGX_CONF_NOARGS | NGX_CONF_TAKE1 | NGX_CONF_TAKE2 | NGX_CONF_TAKE3,
            location::cmd_location_control,
            NGX_HTTP_LOC_CONF_OFFSET,
            offsets.location,
        ),
        command(
            c"upstream_conf",
            location | NGX_CONF_NOARGS | NGX_CONF_TAKE1,
            location::cmd_location_conf,
            NGX_HTTP_LOC_CONF_OFFSET,
            offsets.location,
        ),
        command(
            c"upstream_control_host",
            http | server | location | NGX_CONF_1MORE,
            hosts::cmd_location_host,
            NGX_HTTP_LOC_CONF_OFFSET,
            offsets.location,
        ),
        command(
            c"upstream_dynamic",
            http | upstream | NGX_CONF_FLAG,
            nginx_sys::ngx_conf_set_flag_slot,
            NGX_HTTP_SRV_CONF_OFFSET,
            offsets.upstream,
        ),
        command(
            c"upstream_guard",
            http | upstream | NGX_CONF_TAKE1,
            upstream::cmd_upstream_guard,
            NGX_HTTP_SRV_CONF_OFFSET,
            offsets.upstream,
        ),
        command(
            c"upstream_capacity",
            http | upstream | NGX_CONF_TAKE1,
            upstream::cmd_upstream_capacity,
            NGX_HTTP_SRV_CONF_OFFSET,
            offsets.upstream,
        ),
        command(
            c"upstream_auto_zone",
            upstream | NGX_CONF_TAKE1,
            auto_zone::cmd_upstream_auto_zone,
            NGX_HTTP_SRV_CONF_OFFSET,
            offsets.upstream,
        ),
        command(
            c"pool",
            upstream | NGX_CONF_TAKE1 | NGX_CONF_TAKE2 | NGX_CONF_TAKE3,
            pools::cmd_upstream_pool,
            NGX_HTTP_SRV_CONF_OFFSET,
            offsets.upstream,
        ),
        command(
            c"upstream_control_zone",
            http | NGX_CONF_TAKE1,
            zone::cmd_http_zone,
            NGX_HTTP_MAIN_CONF_OFFSET,
            offsets.http,
        ),
        ngx_command_t::empty(),
    ]
}

/// One row of the table.
const fn command(
    name: &'static std::ffi::CStr,
    contexts: u32,
    set: Handler,
    conf: usize,
    offset: usize,
) -> ngx_command_t {
    ngx_command_t {
        name: ngx_str_t { len: name.count_bytes(), data: name.as_ptr().cast_mut().cast() },
        type_: contexts as ngx_uint_t,
        set: Some(set),
        conf,
        offset,
        post: std::ptr::null_mut(),
    }
}
