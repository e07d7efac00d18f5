/*
 * Bits of a request. bindgen does not see the hole that C leaves before them in
 * nginx 1.29 and newer, so that Rust must not read them itself. And what nginx
 * does by means of them with a reply that waits for its client.
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


/*
 * Counts another user of the request, whom NGX_DONE from its content handler
 * takes away, and sets what ngx_http_set_write_handler would.
 */
void
nuc_hold(ngx_http_request_t *r)
{
    r->main->count++;
    r->http_state = NGX_HTTP_WRITING_REQUEST_STATE;

    if (!r->discard_body) {
        r->read_event_handler = ngx_http_test_reading;
    }
}


/*
 * How ngx_http_writer begins: NGX_OK, NGX_AGAIN while limit_rate holds the
 * reply back, or NGX_HTTP_REQUEST_TIME_OUT.
 */
ngx_int_t
nuc_may_write(ngx_http_request_t *r)
{
    ngx_connection_t  *c = r->connection;

    if (c->write->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");
        c->timedout = 1;
        return NGX_HTTP_REQUEST_TIME_OUT;
    }

    return (c->write->delayed || r->aio) ? NGX_AGAIN : NGX_OK;
}


/*
 * Has the write handler called when the client takes more, as ngx_http_writer
 * does. nginx itself calls that of a request whose turn to send comes.
 */
ngx_int_t
nuc_wait(ngx_http_request_t *r)
{
    ngx_event_t               *wev = r->connection->write;
    ngx_http_core_loc_conf_t  *clcf;

    if (r != r->connection->data) {
        return NGX_OK;
    }

    clcf = ngx_http_get_module_loc_conf(r->main, ngx_http_core_module);

    if (!wev->delayed) {
        ngx_add_timer(wev, clcf->send_timeout);
    }

    return ngx_handle_write_event(wev, clcf->send_lowat);
}


/*
 * Has the write handler called after other events had their turn; at once if
 * the request is a subrequest whose reply goes to memory.  The timer, which is
 * nginx's own for a reply under way, keeps a worker that is to end.
 */
ngx_int_t
nuc_yield(ngx_http_request_t *r)
{
    ngx_connection_t          *c = r->connection;
    ngx_http_core_loc_conf_t  *clcf;

    if (r != c->data) {
        return ngx_http_post_request(r, NULL);
    }

    if (c->write->delayed) {
        return nuc_wait(r);
    }

    clcf = ngx_http_get_module_loc_conf(r->main, ngx_http_core_module);

    ngx_add_timer(c->write, clcf->send_timeout);
    ngx_post_event(c->write, &ngx_posted_next_events);

    return NGX_OK;
}


/* Counts another user of the request, who finalizes it. */
void
nuc_count(ngx_http_request_t *r)
{
    r->main->count++;
}
