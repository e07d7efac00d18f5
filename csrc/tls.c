/*
 * TLS to peers. The nginx that runs may have TLS where the one that this was
 * compiled against had none, or the other way round: configured with
 * --with-compat, both have the same structures.
 */

#include "shim.h"


/* nginx's header declares it only with TLS, and an nginx without has none. */
ngx_int_t ngx_ssl_shutdown(ngx_connection_t *c);

#pragma weak ngx_ssl_shutdown


/* Whether TLS has begun on the connection. */
ngx_uint_t
nuc_has_tls(ngx_connection_t *c)
{
#if (NGX_SSL || NGX_COMPAT)
    return c->ssl != NULL;
#else
    return 0;
#endif
}


/* Ends TLS on a connection that is about to be closed, and frees what it has. */
void
nuc_end_tls(ngx_connection_t *c)
{
    if (!nuc_has_tls(c) || ngx_ssl_shutdown == NULL) {
        return;
    }

    /* nginx neither tells the peer of a broken connection nor waits for it */
    c->error = 1;

    (void) ngx_ssl_shutdown(c);
}


/*
 * The functions by which a balancer keeps TLS sessions: none in an nginx
 * without TLS and --with-compat, which has no place for them.
 */
nuc_sessions_t
nuc_sessions(ngx_peer_connection_t *pc)
{
    nuc_sessions_t  sessions = { NULL, NULL };

#if (NGX_SSL || NGX_COMPAT)
    sessions.set = pc->set_session;
    sessions.save = pc->save_session;
#endif

    return sessions;
}


void
nuc_set_sessions(ngx_peer_connection_t *pc, nuc_sessions_t sessions)
{
#if (NGX_SSL || NGX_COMPAT)
    pc->set_session = sessions.set;
    pc->save_session = sessions.save;
#endif
}
