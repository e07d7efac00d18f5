#!/bin/sh
# debian-tree.sh NAME: configures the source that Debian's nginx-dev carries, as Debian configured its nginx, into
# build/NAME/src: debian is the machine's, debian-forky that of debian-forky.sh. There is nothing to compile: the package
# has headers only, and the binary comes from another.
set -eu
cd "$(dirname "$0")/.."
tree=$PWD/build/$1
case $1 in
    debian) root='' nginx=/usr/sbin/nginx package=$(dpkg-query -W nginx-dev) ;;
    debian-forky) root=$tree/root nginx=$tree/nginx package='' ;;
esac
dev=$root/usr/share/nginx/src

stamp="$(cat "$dev/conf_flags" "$dev/src/core/nginx.h" tools/debian-tree.sh | cksum) $package"
if [ "$(cat "$tree/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

version=$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' "$dev/src/core/nginx.h")
case $($nginx -v 2>&1) in
    *"nginx/$version"*) ;;
    *)
        echo "$nginx is not the $version that nginx-dev has the headers of: $($nginx -v 2>&1)" >&2
        exit 1
        ;;
esac

rm -rf "$tree/src" "$tree/stamp"
mkdir -p "$tree"
cp -R "$dev" "$tree/src"
# the flags are a bash array
if ! (cd "$tree/src" && bash -c '. ./conf_flags && ./configure "${NGX_CONF_FLAGS[@]}"') >"$tree/build.log" 2>&1; then
    tail -n 20 "$tree/build.log" >&2
    echo "Debian's nginx source does not configure: see build/$1/build.log" >&2
    exit 1
fi
echo "$stamp" >"$tree/stamp"
