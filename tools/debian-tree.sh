#!/bin/sh
# Configures the source that Debian's nginx-dev carries, as Debian configured its nginx, into build/debian/src. There is
# nothing to compile: the package has headers only, and the binary is /usr/sbin/nginx.
set -eu
cd "$(dirname "$0")/.."
tree=$PWD/build/debian
dev=/usr/share/nginx/src

stamp="$(cat "$dev/conf_flags" "$dev/src/core/nginx.h" tools/debian-tree.sh | cksum) $(dpkg-query -W nginx-dev)"
if [ "$(cat "$tree/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

version=$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$dev/src/core/nginx.h")
case $(/usr/sbin/nginx -v 2>&1) in
    *"nginx/$version"*) ;;
    *)
        echo "/usr/sbin/nginx is not the $version that nginx-dev has the headers of: $(/usr/sbin/nginx -v 2>&1)" >&2
        exit 1
        ;;
esac

rm -rf "$tree/src" "$tree/stamp"
mkdir -p "$tree"
cp -R "$dev" "$tree/src"
# the flags are a bash array
if ! (cd "$tree/src" && bash -c '. ./conf_flags && ./configure "${NGX_CONF_FLAGS[@]}"') >"$tree/build.log" 2>&1; then
    tail -n 20 "$tree/build.log" >&2
    echo "Debian's nginx source does not configure: see build/debian/build.log" >&2
    exit 1
fi
echo "$stamp" >"$tree/stamp"
