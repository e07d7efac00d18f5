#!/bin/sh
# parts-left-out.sh: builds nginx without each part that it can be built without, and runs the module there. One that was
# compiled against nginx with all of them must load and work, and the other way round.
set -eu
cd "$(dirname "$0")/.."
with_all=$(build/nginx-1.28/nginx -V 2>&1 | sed -n 's/^configure arguments: //p')

# options PART: those of build/nginx-1.28, without PART.
options() {
    case $1 in
        ssl) echo "$with_all" | sed 's/--with-[a-z]*_ssl_module//g' ;;
        stream) echo "$with_all" | sed 's/--with-stream[a-z_]*//g' ;;
        stub_status | v2 | auth_request) echo "$with_all" | sed "s/--with-http_$1_module//" ;;
        threads) echo "$with_all" | sed 's/--with-threads//' ;;
        rewrite) echo "$with_all --with-pcre --without-http_rewrite_module" ;;
        pcre) echo "$with_all --without-pcre --without-http_rewrite_module" ;;
        # the structures of nginx without --with-compat are others
        compat) echo '--without-pcre --without-http_rewrite_module' ;;
        *) echo "$with_all --without-http_$1_module" ;;
    esac
}

# tree PART: an nginx without it, in build/without/PART.
tree() {
    tools/nginx-tree.sh "without/$1" -O0 "$(options "$1")"
}

for part in ssl stream stub_status v2 auth_request threads rewrite upstream_hash upstream_ip_hash upstream_least_conn \
    upstream_random upstream_keepalive upstream_zone; do
    tree $part
    echo "without $part:"
    tools/prove.sh nginx-1.28 "$PWD/build/without/$part/nginx" t/parts.t
done

# nginx knows such a module, and says so.
tree pcre
module=$PWD/build/nginx-1.28/ngx_http_upstream_control_module.so
if said=$(build/without/pcre/nginx -t -q -e stderr -g "load_module $module;" 2>&1); then
    echo "an nginx without pcre takes a module that was compiled for one with it" >&2
    exit 1
fi
echo "$said" | grep -q 'is not binary compatible'

# Compiled without TLS, in an nginx that has it.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
tools/module.sh without/ssl
tools/symbols.sh without/ssl
tools/prove.sh without/ssl "$PWD/build/nginx-1.28/nginx" t/parts.t t/members_keepalive.t t/members_tls.t t/hazard_tls.t

# Compiled for an nginx of few parts and other structures.
tree compat
tools/module.sh without/compat
tools/symbols.sh without/compat
tools/prove.sh without/compat "$PWD/build/without/compat/nginx" t/parts.t
