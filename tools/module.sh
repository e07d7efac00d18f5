#!/bin/sh
# module.sh NAME: compiles the module against the nginx tree build/NAME, and prints where it is.
set -eu
cd "$(dirname "$0")/.."
module=ngx_http_upstream_control_module.so
built=build/$1/target/release/lib$module

tools/in-tree.sh "$1" cargo build --release --locked
if ! cmp -s "$built" "build/$1/$module"; then
    # not cp: a running nginx has the old file mapped
    install "$built" "build/$1/$module"
fi
echo "$PWD/build/$1/$module"
