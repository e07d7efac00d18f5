//! nginx's own types of an upstream and its peers, under the names that the rest of the room calls them: what another
//! kind of peers would stand beside.

#[cfg(not(nginx_peer_refs))]
use nginx_sys::ngx_http_complex_value_t;
use nginx_sys::{
    ngx_http_request_t, ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t,
    ngx_http_upstream_srv_conf_t, ngx_http_upstream_t,
};

/// A peer, as nginx has it.
pub type RawPeer = ngx_http_upstream_rr_peer_t;

/// A list of peers, as nginx has it.
pub type RawPeers = ngx_http_upstream_rr_peers_t;

/// Settings of an upstream.
pub type UpstreamConf = ngx_http_upstream_srv_conf_t;

/// A request.
pub type RawRequest = ngx_http_request_t;

/// What a request has of its upstream.
pub type RequestUpstream = ngx_http_upstream_t;

/// A text with variables in it.
#[cfg(not(nginx_peer_refs))]
pub type ComplexValue = ngx_http_complex_value_t;
