#!/bin/sh
# prove.sh NAME BINARY FILE...: runs test files against the nginx BINARY and the module in build/NAME.
set -eu
cd "$(dirname "$0")/.."
export TEST_NGINX_BINARY="$2"
export TEST_NGINX_MODULE="$PWD/build/$1/ngx_http_upstream_control_module.so"
shift 2

for file in "$@" "$TEST_NGINX_BINARY" "$TEST_NGINX_MODULE"; do
    # a pattern that matched nothing comes here as it was written
    if [ ! -f "$file" ]; then
        echo "prove: $file: no such file" >&2
        exit 1
    fi
done

echo "prove: $("$TEST_NGINX_BINARY" -v 2>&1), $TEST_NGINX_BINARY"
# Tests wait most of the time, but for the long ones under load.
jobs=$(getconf _NPROCESSORS_ONLN)
if [ -z "${TEST_NGINX_LONG:-}" ]; then jobs=$((2 * jobs)); fi

# The largest files first, which mostly take longest: none of them shall be begun last.
# shellcheck disable=SC2012,SC2046 # names of ours, without spaces
exec prove -j "$jobs" --timer -I t/lib $(ls -S "$@")
