/* Names of server blocks, whose structure depends on the parts that nginx was built with. */

#include "shim.h"

#if (NGX_PCRE)
/* An nginx without regular expressions does not have it. */
#pragma weak ngx_regex_exec
#endif


/*
 * The n-th name of a server block, and its regular expression or null; 0 after
 * the last. nginx has the list only while it reads the configuration.
 */
ngx_uint_t
nuc_server_name(ngx_http_core_srv_conf_t *cscf, ngx_uint_t n, ngx_str_t *name,
    void **regex)
{
    ngx_http_server_name_t  *sn = cscf->server_names.elts;

    if (n >= cscf->server_names.nelts) {
        return 0;
    }

    *name = sn[n].name;
    *regex = NULL;

#if (NGX_PCRE)
    if (sn[n].regex) {
        *regex = sn[n].regex->regex;
    }
#endif

    return 1;
}


ngx_uint_t
nuc_regex_matches(void *regex, ngx_str_t *text)
{
#if (NGX_PCRE)
    return ngx_regex_exec != NULL && ngx_regex_exec(regex, text, NULL, 0) >= 0;
#else
    return 0;
#endif
}
