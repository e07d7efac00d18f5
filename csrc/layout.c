/* What the C compiler says of the structures that Rust reads through bindgen's eyes. */

#include "shim.h"


void
nuc_layout(nuc_layout_t *layout)
{
    layout->peer_size = sizeof(ngx_http_upstream_rr_peer_t);
    layout->peer_sockaddr = offsetof(ngx_http_upstream_rr_peer_t, sockaddr);
    layout->peer_socklen = offsetof(ngx_http_upstream_rr_peer_t, socklen);
    layout->peer_server = offsetof(ngx_http_upstream_rr_peer_t, server);
    layout->peer_checked = offsetof(ngx_http_upstream_rr_peer_t, checked);
    layout->peer_fail_timeout = offsetof(ngx_http_upstream_rr_peer_t,
                                         fail_timeout);
    layout->peer_name = offsetof(ngx_http_upstream_rr_peer_t, name);
    layout->peer_weight = offsetof(ngx_http_upstream_rr_peer_t, weight);
    layout->peer_conns = offsetof(ngx_http_upstream_rr_peer_t, conns);
    layout->peer_down = offsetof(ngx_http_upstream_rr_peer_t, down);
    layout->peer_lock = offsetof(ngx_http_upstream_rr_peer_t, lock);
    layout->peer_next = offsetof(ngx_http_upstream_rr_peer_t, next);

    layout->peers_size = sizeof(ngx_http_upstream_rr_peers_t);
    layout->peers_shpool = offsetof(ngx_http_upstream_rr_peers_t, shpool);
    layout->peers_rwlock = offsetof(ngx_http_upstream_rr_peers_t, rwlock);
    layout->peers_total_weight = offsetof(ngx_http_upstream_rr_peers_t,
                                          total_weight);
    layout->peers_tries = offsetof(ngx_http_upstream_rr_peers_t, tries);
    layout->peers_next = offsetof(ngx_http_upstream_rr_peers_t, next);
    layout->peers_peer = offsetof(ngx_http_upstream_rr_peers_t, peer);

    layout->upstream_conf_size = sizeof(ngx_http_upstream_srv_conf_t);
    layout->upstream_conf_peer = offsetof(ngx_http_upstream_srv_conf_t, peer);
    layout->upstream_conf_shm_zone = offsetof(ngx_http_upstream_srv_conf_t,
                                              shm_zone);
    layout->upstream_peer = offsetof(ngx_http_upstream_t, peer);
    layout->peer_connection_size = sizeof(ngx_peer_connection_t);
    layout->request_size = sizeof(ngx_http_request_t);
}
