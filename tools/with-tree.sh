#!/bin/sh
# with-tree.sh SOURCE: makes build/with-VERSION/src, a configured tree, of a tree of nginx that somebody else has, and
# prints the name with-VERSION. A tree without objs/ is configured in a copy: this script never writes into SOURCE.
set -eu
cd "$(dirname "$0")/.."
if [ -z "$1" ]; then
    echo "NGINX_SOURCE_DIR must name nginx's source: NGINX_SOURCE_DIR=/path/to/nginx make build-with" >&2
    exit 1
fi
if [ ! -f "$1/src/core/nginx.h" ]; then
    echo "NGINX_SOURCE_DIR is not a source tree of nginx: $1/src/core/nginx.h is missing" >&2
    exit 1
fi
source=$(cd "$1" && pwd)
version=$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$source/src/core/nginx.h")
name=with-$version
tree=$PWD/build/$name
mkdir -p "$tree"

if [ -f "$source/objs/Makefile" ] && [ -f "$source/objs/ngx_auto_config.h" ]; then
    if [ ! -L "$tree/src" ]; then rm -rf "$tree/src" "$tree/stamp"; fi
    ln -sfn "$source" "$tree/src"
    echo "$name"
    exit 0
fi

# Configured before, from this folder, and nothing in it is newer: keep the copy, or the module is compiled anew.
if [ "$(cat "$tree/stamp" 2>/dev/null)" != "$source" ] ||
    [ -n "$(find "$source/src" "$source/auto" -newer "$tree/stamp" | head -n 1)" ]; then
    rm -rf "$tree/src" "$tree/stamp"
    mkdir "$tree/src"
    # a checkout has auto/configure, a release has configure
    for part in auto src conf configure; do
        if [ -e "$source/$part" ]; then cp -R "$source/$part" "$tree/src/"; fi
    done
    configure=./configure
    if [ ! -f "$tree/src/configure" ]; then configure=auto/configure; fi
    if ! (cd "$tree/src" && sh $configure --with-compat --with-threads --with-http_ssl_module --with-http_v2_module \
        ${CC:+"--with-cc=$CC"}) >"$tree/build.log" 2>&1; then
        tail -n 20 "$tree/build.log" >&2
        echo "$source does not configure: see build/$name/build.log" >&2
        exit 1
    fi
    echo "$source" >"$tree/stamp"
fi
echo "$name"
