#!/bin/sh
# Builds build/nginx-1.28-junk/nginx, which fills shared memory with junk when it is taken and when it is freed: the nginx
# of build/nginx-1.28 with NGX_DEBUG_MALLOC. Few of nginx's files ask for that, hence only they are compiled again.
set -eu
cd "$(dirname "$0")/.."
plain=$PWD/build/nginx-1.28 tree=$PWD/build/nginx-1.28-junk

stamp="$(cat "$plain/stamp") $(cksum <tools/nginx-junk.sh)"
if [ -x "$tree/nginx" ] && [ "$(cat "$tree/stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

rm -rf "$tree"
mkdir -p "$tree"
cp -Rp "$plain/src" "$tree/src"

compile() {
    cd "$tree/src"
    grep -rl NGX_DEBUG_MALLOC src --include='*.c' | sed 's|^\(.*\)\.c$|objs/\1.o|' | xargs rm -f
    cflags=$(sed -n 's/^CFLAGS = *//p' objs/Makefile)
    # not the caller's make flags: its job server is not ours
    MAKEFLAGS='' make -f objs/Makefile CFLAGS="$cflags -DNGX_DEBUG_MALLOC" objs/nginx
}
if ! (compile) >"$tree/build.log" 2>&1; then
    tail -n 20 "$tree/build.log" >&2
    echo "nginx does not build: see build/nginx-1.28-junk/build.log" >&2
    exit 1
fi
mv "$tree/src/objs/nginx" "$tree/nginx"
rm -rf "$tree/src"
echo "$stamp" >"$tree/stamp"
