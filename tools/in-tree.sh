#!/bin/sh
# in-tree.sh NAME COMMAND...: runs COMMAND, a call of cargo, against the nginx tree build/NAME. Each tree has a target
# folder of its own, so that a change of nginx does not throw away what was compiled against the other.
set -eu
cd "$(dirname "$0")/.."
tree=$PWD/build/$1
shift

# read by nginx-sys
export NGINX_SOURCE_DIR="$tree/src"
export NGINX_BUILD_DIR="$tree/src/objs"
export CARGO_TARGET_DIR="$tree/target"
# read by build.rs, for the tests that link nginx's objects; a tree of headers only has none
if [ -f "$tree/objs-archive/libs" ]; then
    export NGX_TEST_OBJS="$tree/objs-archive"
    NGX_TEST_LIBS=$(cat "$tree/objs-archive/libs")
    export NGX_TEST_LIBS
fi
exec "$@"
