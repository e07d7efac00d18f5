/* What nginx keeps in macros, inlines and conditionals, as functions that Rust can call. */

#ifndef _NUC_SHIM_H_INCLUDED_
#define _NUC_SHIM_H_INCLUDED_

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

void nuc_peers_unlock(ngx_http_upstream_rr_peers_t *peers);

ngx_uint_t nuc_header_only(ngx_http_request_t *r);
ngx_uint_t nuc_header_sent(ngx_http_request_t *r);
void nuc_hold(ngx_http_request_t *r);
void nuc_count(ngx_http_request_t *r);
ngx_int_t nuc_may_write(ngx_http_request_t *r);
ngx_int_t nuc_wait(ngx_http_request_t *r);
ngx_int_t nuc_yield(ngx_http_request_t *r);

ngx_uint_t nuc_server_name(ngx_http_core_srv_conf_t *cscf, ngx_uint_t n,
    ngx_str_t *name, void **regex);
ngx_uint_t nuc_regex_matches(void *regex, ngx_str_t *text);
ngx_uint_t nuc_checked_user(ngx_http_request_t *r, ngx_str_t *user);

ngx_uint_t nuc_has_tls(ngx_connection_t *c);
void nuc_end_tls(ngx_connection_t *c);

/* `Sessions` in src/balancer/connection.rs. */
typedef struct {
    ngx_event_set_peer_session_pt   set;
    ngx_event_save_peer_session_pt  save;
} nuc_sessions_t;

nuc_sessions_t nuc_sessions(ngx_peer_connection_t *pc);
void nuc_set_sessions(ngx_peer_connection_t *pc, nuc_sessions_t sessions);

size_t nuc_sockaddr_strlen(void);
u_char *nuc_take_session(ngx_http_upstream_rr_peer_t *peer);
void nuc_sid(u_char *sid, const u_char *name, size_t len);

/* Sizes and offsets in bytes, in the order of `Layout` in src/zone/layout.rs. */
typedef struct {
    size_t  peer_size;
    size_t  peer_sockaddr;
    size_t  peer_socklen;
    size_t  peer_server;
    size_t  peer_checked;
    size_t  peer_fail_timeout;
    size_t  peer_name;
    size_t  peer_weight;
    size_t  peer_conns;
    size_t  peer_down;
    size_t  peer_lock;
    size_t  peer_next;
    size_t  peers_size;
    size_t  peers_shpool;
    size_t  peers_rwlock;
    size_t  peers_total_weight;
    size_t  peers_tries;
    size_t  peers_next;
    size_t  peers_peer;
    size_t  upstream_conf_size;
    size_t  upstream_conf_peer;
    size_t  upstream_conf_shm_zone;
    size_t  upstream_peer;
    size_t  peer_connection_size;
    size_t  request_size;
} nuc_layout_t;

void nuc_layout(nuc_layout_t *layout);

#endif /* _NUC_SHIM_H_INCLUDED_ */
