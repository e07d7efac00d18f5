/*
 * Bits of a request. bindgen does not see the hole that C leaves before them in
 * nginx 1.29 and newer, so that Rust must not read them itself.
 */

#include "shim.h"


ngx_uint_t
nuc_header_only(ngx_http_request_t *r)
{
    return r->header_only;
}


ngx_uint_t
nuc_header_sent(ngx_http_request_t *r)
{
    return r->header_sent;
}


void
nuc_hold(ngx_http_request_t *r)
{
    r->main->count++;
}
