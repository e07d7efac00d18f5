#!/bin/sh
# nginx-tree.sh NAME [FLAGS [OPTIONS]]: builds nginx from source, into build/NAME, with FLAGS for the compiler and the
# linker, and OPTIONS for its configure in the place of those below:
#   nginx         the binary
#   src/          its source, configured; src/objs is what the module is compiled against
#   objs-archive/ its objects, for the tests that run against them
# A second call does nothing, unless this file, the compiler or the version of nginx changed.
set -eu
cd "$(dirname "$0")/.."
name=$1 flags=${2:-}
# What distributions build with: --with-compat, and the modules that move fields of ngx_http_request_t and
# ngx_connection_t.
options=${3:---with-compat --with-threads --with-http_ssl_module --with-http_v2_module --with-http_realip_module \
--with-http_auth_request_module --with-http_stub_status_module --with-stream --with-stream_ssl_module}
tree=$PWD/build/$name

stamp="$(cat tools/nginx-source/Cargo.lock tools/nginx-tree.sh | cksum) ${CC:-cc} $flags $options"
if [ -x "$tree/nginx" ] && [ "$(cat "$tree/stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

echo "building build/$name/nginx, which is needed once (log: build/$name/build.log)"
source=$(tools/nginx-source.sh)
rm -rf "$tree/src" "$tree/stamp"
mkdir -p "$tree"
cp -R "$source" "$tree/src"

# --with-debug for its log, which tests read.
compile() {
    cd "$tree/src"
    chmod +x auto/configure
    # shellcheck disable=SC2086 # a list of words
    auto/configure --with-debug $options \
        ${CC:+"--with-cc=$CC"} ${flags:+"--with-cc-opt=$flags" "--with-ld-opt=$flags"}
    # not the caller's make flags: its job server is not ours
    MAKEFLAGS='' make -j "$(getconf _NPROCESSORS_ONLN)"
}
if ! (compile) >"$tree/build.log" 2>&1; then
    tail -n 20 "$tree/build.log" >&2
    echo "nginx does not build: see build/$name/build.log" >&2
    exit 1
fi
cp "$tree/src/objs/nginx" "$tree/nginx"
tools/nginx-objs.sh "$tree"
echo "$stamp" >"$tree/stamp"
