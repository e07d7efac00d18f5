#!/bin/sh
# bare-tree.sh: builds nginx into build/nginx-1.28-bare, without all that can be left out if a module that was compiled
# against build/nginx-1.28 is still to fit. It is not optimised, which takes half the time.
set -eu
cd "$(dirname "$0")/.."

# What stays: proxy and zones, without which there is nothing to control; and pcre, gzip and realip, since nginx compares
# them before it loads a module.
without=$(grep -o -e '--without-http_[a-z_]*_module' "$(tools/nginx-source.sh)/auto/options" | sort -u |
    grep -v -e _proxy_ -e _upstream_zone_ -e _gzip_ | tr '\n' ' ')
exec tools/nginx-tree.sh nginx-1.28-bare -O0 "--with-compat $without--with-pcre --with-http_realip_module"
