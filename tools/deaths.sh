#!/bin/sh
# deaths.sh NAME: compiles the module whose workers die when told, against the nginx tree build/NAME, into
# build/deaths/NAME. It is not optimised: the tests of the crate have compiled most of it.
set -eu
cd "$(dirname "$0")/.."
module=ngx_http_upstream_control_module.so

tools/in-tree.sh "$1" cargo build --locked --lib --features test-deaths
mkdir -p "build/deaths/$1"
install "build/$1/target/debug/lib$module" "build/deaths/$1/$module"
