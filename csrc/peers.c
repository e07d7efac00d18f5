/* The locks of nginx's upstream peers. They are macros, so that Rust cannot see them. */

#include "shim.h"


void
nuc_peers_unlock(ngx_http_upstream_rr_peers_t *peers)
{
    ngx_http_upstream_rr_peers_unlock(peers);
}
