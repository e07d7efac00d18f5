/* Who sent a request, where nginx itself has found out. */

#include "shim.h"


static ngx_module_t *
nuc_auth_basic(void)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_cycle->modules_n; i++) {
        if (ngx_strcmp(ngx_cycle->modules[i]->name,
                       "ngx_http_auth_basic_module")
            == 0)
        {
            return ngx_cycle->modules[i];
        }
    }

    return NULL;
}


/* What a directive of auth_basic has set in a location; the module says where that lies by its table of commands. */
static void *
nuc_auth_basic_value(ngx_http_request_t *r, ngx_module_t *module,
    const char *name)
{
    ngx_command_t  *cmd;

    for (cmd = module->commands; cmd->name.len; cmd++) {
        if (ngx_strcmp(cmd->name.data, name) == 0
            && cmd->conf == NGX_HTTP_LOC_CONF_OFFSET)
        {
            return *(void **)
                ((char *) r->loc_conf[module->ctx_index] + cmd->offset);
        }
    }

    return NULL;
}


/*
 * The user whose password auth_basic has checked on the way to the content
 * handler; 0 if there is none. What stands in the request alone is no more than
 * what the client says. Under "satisfy any" the request may have passed for
 * another reason, and nginx does not say for which.
 */
ngx_uint_t
nuc_checked_user(ngx_http_request_t *r, ngx_str_t *user)
{
    ngx_str_t                  realm;
    ngx_module_t              *module;
    ngx_http_complex_value_t  *value;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    /* nginx lets subrequests pass. */
    if (r != r->main
        || r->headers_in.authorization == NULL
        || clcf->satisfy != NGX_HTTP_SATISFY_ALL)
    {
        return 0;
    }

    module = nuc_auth_basic();

    if (module == NULL
        || nuc_auth_basic_value(r, module, "auth_basic_user_file") == NULL)
    {
        return 0;
    }

    value = nuc_auth_basic_value(r, module, "auth_basic");

    /* As ngx_http_auth_basic_handler decides whether it asks for a password. */
    if (value == NULL
        || ngx_http_complex_value(r, value, &realm) != NGX_OK
        || (realm.len == 3 && ngx_strncmp(realm.data, "off", 3) == 0)
        || ngx_http_auth_basic_user(r) != NGX_OK)
    {
        return 0;
    }

    *user = r->headers_in.user;

    return 1;
}
