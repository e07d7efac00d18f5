/* What a new peer is made of, where nginx keeps it in macros or inlines. */

#include "shim.h"

#include <ngx_md5.h>


/* Size of the buffer of a peer's name: nginx frees it, and resolves into it. */
size_t
nuc_sockaddr_strlen(void)
{
    return NGX_SOCKADDR_STRLEN;
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
