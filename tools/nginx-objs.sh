#!/bin/sh
# nginx-objs.sh TREE: archives the objects of a built nginx as TREE/objs-archive/libngxtest.a, to be linked into the
# module's tests, and writes the libraries that nginx itself is linked with into TREE/objs-archive/libs.
set -eu
objs=$1/src/objs archive=$1/objs-archive

rm -rf "$archive"
mkdir -p "$archive"

# A test binary has a main of its own.
objcopy --redefine-sym main=nginx_main "$objs/src/core/nginx.o" "$archive/nginx.o"
find "$objs/src" -name '*.o' ! -path '*/core/nginx.o' \
    -exec ar crs "$archive/libngxtest.a" "$objs/ngx_modules.o" "$archive/nginx.o" {} +

# The first link rule is nginx's; dynamic modules have theirs further down.
awk '/^\t\$\(LINK\)/ { rule = 1 }
     rule { for (i = 1; i <= NF; i++) if ($i ~ /^-l/) printf "%s ", $i }
     rule && !/\\$/ { exit }' "$objs/Makefile" >"$archive/libs"
