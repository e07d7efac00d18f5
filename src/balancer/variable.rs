//! `$upstream_no_connection`: whether no server could be reached for a request. nginx's statuses do not tell: 502 may as
//! well be a bad answer.

use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_VAR_NOCACHEABLE, NGX_OK, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t,
    ngx_http_upstream_state_t, ngx_http_variable_value_t, ngx_int_t, ngx_msec_t, ngx_str_t, ngx_uint_t,
};

use super::inner::Head;
use super::{pools, request};

/// Its name.
const NAME: &str = "upstream_no_connection";

/// What nginx writes for a connection that was not made.
const NEVER: ngx_msec_t = ngx_msec_t::MAX;

/// Makes the variable known. None without memory.
///
/// # Safety
///
/// Called in `preconfiguration`.
pub unsafe fn add_variables(cf: NonNull<ngx_conf_t>) -> Option<()> {
    // SAFETY: see above; nginx copies the name.
    unsafe {
        let mut name = ngx_str_t { len: NAME.len(), data: NAME.as_ptr().cast_mut() };
        let flags = NGX_HTTP_VAR_NOCACHEABLE as ngx_uint_t;
        let variable = ngx_http_add_variable(cf.as_ptr(), &raw mut name, flags);
        variable.as_mut()?.get_handler = Some(get);
    }
    Some(())
}

/// nginx's entry: the variable's value for a request.
unsafe extern "C" fn get(
    r: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    _data: usize,
) -> ngx_int_t {
    // SAFETY: nginx calls this in a worker, with a request and a place for the value.
    super::guarded(NGX_ERROR as ngx_int_t, || unsafe {
        let text: Option<&'static str> = found_none(r).map(|none| if none { "1" } else { "0" });
        (*value).set_len(text.map_or(0, str::len) as u32);
        (*value).data = text.map_or(ptr::null_mut(), |text| text.as_ptr().cast_mut());
        (*value).set_valid(u32::from(text.is_some()));
        (*value).set_no_cacheable(1);
        (*value).set_not_found(u32::from(text.is_none()));
        NGX_OK as ngx_int_t
    })
}

/// Whether no server of the upstream that was asked last could be reached; none if none was asked.
///
/// # Safety
///
/// The request lives.
unsafe fn found_none(r: *const ngx_http_request_t) -> Option<bool> {
    // SAFETY: see above. nginx keeps a state for each server that was asked; between two upstreams there is one that names
    // no server.
    unsafe {
        let states = (*r).upstream_states.as_ref()?.as_slice::<ngx_http_upstream_state_t>();
        let last = states.rsplit(|state| state.peer.is_null()).next().filter(|last| !last.is_empty())?;
        let connected = last.iter().any(|state| state.connect_time != NEVER);
        Some(!connected && !was_reached(r))
    }
}

/// Whether a server took a connection but TLS failed, for all that this module rides on.
///
/// # Safety
///
/// The request lives.
unsafe fn was_reached(r: *const ngx_http_request_t) -> bool {
    // SAFETY: see above; these functions have data that begins with a head, which lives as long as the request.
    unsafe {
        let Some(upstream) = (*r).upstream.as_ref() else { return false };
        let pc = &upstream.peer;
        let is_ours = pc.get.is_some_and(|get| request::is_own(get) || pools::is_own(get));
        is_ours && pc.data.cast::<Head>().as_ref().is_some_and(|head| head.was_reached)
    }
}
