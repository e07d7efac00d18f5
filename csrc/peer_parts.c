/* What a peer is made of, where nginx keeps it in macros or inlines. */

#include "shim.h"

#include <ngx_md5.h>


/* Size of the buffer of a peer's name: nginx frees it, and resolves into it. */
size_t
nuc_sockaddr_strlen(void)
{
    return NGX_SOCKADDR_STRLEN;
}


/*
 * Takes the TLS session of a peer away: a chunk of its zone, or none. Peers
 * have no place for one in an nginx without TLS and --with-compat.
 */
u_char *
nuc_take_session(ngx_http_upstream_rr_peer_t *peer)
{
    u_char  *session = NULL;

#if (NGX_HTTP_SSL || NGX_COMPAT)
    session = (u_char *) peer->ssl_session;
    peer->ssl_session = NULL;
    peer->ssl_session_len = 0;
#endif

    return session;
}


/* Writes the identity that sticky sessions know a peer by: 32 bytes. */
void
nuc_sid(u_char *sid, const u_char *name, size_t len)
{
    u_char     hash[16];
    ngx_md5_t  md5;

    ngx_md5_init(&md5);
    ngx_md5_update(&md5, name, len);
    ngx_md5_final(hash, &md5);

    ngx_hex_dump(sid, hash, 16);
}
