#!/bin/sh
# prerequisites.sh GROUP...: sees to it that what the named groups need is there: build, check, debian, forky, test,
# demo, bench, audit. Root on Debian or Ubuntu gets it installed, everybody else one line that says what to do.
set -eu

packages='' names=''

# need PACKAGE NAME TEST...: unless TEST succeeds, NAME is missing, and Debian's PACKAGE has it.
need() {
    package=$1 name=$2
    shift 2
    # two groups may need the same
    case " $packages " in *" $package "*) return ;; esac
    if ! "$@" >/dev/null 2>&1; then
        packages="$packages $package"
        names="$names${names:+, }$name"
    fi
}

command_exists() { command -v "$1"; }

any_command_exists() {
    for name in "$@"; do
        if command_exists "$name"; then return 0; fi
    done
    return 1
}

# Another Python than Debian's, which may come first, does not see Debian's packages.
metrics_parser_exists() {
    for python in python3 /usr/bin/python3; do
        if $python -c 'import prometheus_client.parser'; then return 0; fi
    done
    return 1
}

file_exists() {
    for path in "$@"; do
        if [ -e "$path" ]; then return 0; fi
    done
    return 1
}

# Looks in the usual places first, since it is much faster than the compiler, which knows all of them.
header_exists() {
    file_exists "/usr/include/$1" /usr/include/*-linux-gnu*/"$1" ||
        echo "#include <$1>" | "${CC:-cc}" -DPCRE2_CODE_UNIT_WIDTH=8 -E -
}

# The places that bindgen's loader looks into. libclang-cpp, which lies in the same ones, is another library.
libclang_exists() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    llvm=$(llvm-config --libdir 2>/dev/null || true)
    for folder in ${llvm:+"$llvm"} /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu* /usr/lib64 /usr/lib /usr/local/lib; do
        if file_exists "$folder"/libclang.so* "$folder"/libclang-[0-9]*.so*; then return; fi
    done
    return 1
}

# cargo needs them to reach crates.io.
certificates_exist() {
    [ -n "${SSL_CERT_FILE:-}${SSL_CERT_DIR:-}${CARGO_HTTP_CAINFO:-}" ] ||
        file_exists /etc/ssl/certs/ca-certificates.crt /etc/ssl/cert.pem /etc/pki/tls/certs/ca-bundle.crt
}

# rust COMMAND HINT: Debian's own Rust is too old for this project, so that it is not offered.
rust() {
    if ! $1 --version >/dev/null 2>&1; then
        echo "missing: $1; install it with: $2" >&2
        exit 1
    fi
}

for group in "$@"; do
    case $group in
        build)
            rust cargo "the installer from https://rustup.rs"
            need ca-certificates "certificates of the authorities" certificates_exist
            need gcc "a C compiler" command_exists "${CC:-cc}"
            need libc6-dev stdio.h header_exists stdio.h
            need make make command_exists make
            need binutils objcopy command_exists objcopy
            need libclang-dev libclang libclang_exists
            need libpcre2-dev pcre2.h header_exists pcre2.h
            need zlib1g-dev zlib.h header_exists zlib.h
            need libssl-dev openssl/ssl.h header_exists openssl/ssl.h
            ;;
        check)
            rust "cargo fmt" "rustup component add rustfmt"
            rust "cargo clippy" "rustup component add clippy"
            need shellcheck shellcheck command_exists shellcheck
            ;;
        debian)
            need bash bash command_exists bash
            need nginx "Debian's nginx" file_exists /usr/sbin/nginx
            need nginx-dev /usr/share/nginx/src/conf_flags file_exists /usr/share/nginx/src/conf_flags
            ;;
        forky)
            need patchelf patchelf command_exists patchelf
            ;;
        test)
            need perl prove command_exists prove
            need wrk wrk command_exists wrk
            # a balancer that is not nginx's own
            need libnginx-mod-http-upstream-fair "Debian's fair balancer" \
                file_exists /usr/lib/nginx/modules/ngx_http_upstream_fair_module.so
            # scripts that change servers
            need libnginx-mod-http-lua "Lua for Debian's nginx" \
                file_exists /usr/lib/nginx/modules/ngx_http_lua_module.so
            # looks at the page
            need chromium Chromium any_command_exists chromium chromium-browser google-chrome
            need chromium-driver chromedriver command_exists chromedriver
            # reads the metrics
            need python3-prometheus-client "Prometheus's parser for Python" metrics_parser_exists
            ;;
        demo)
            need curl curl command_exists curl
            ;;
        bench)
            need curl curl command_exists curl
            need wrk wrk command_exists wrk
            need valgrind valgrind command_exists valgrind
            ;;
        audit)
            rust cargo "the installer from https://rustup.rs"
            need ca-certificates "certificates of the authorities" certificates_exist
            need gcc "a C compiler" command_exists "${CC:-cc}"
            need libc6-dev stdio.h header_exists stdio.h
            # fetches the advisories
            need git git command_exists git
            ;;
        *)
            echo "$0: unknown group \"$group\"" >&2
            exit 1
            ;;
    esac
done

if [ -z "$packages" ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
    echo "missing: $names; install them with your package manager" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "missing: $names; install with: sudo apt-get install --no-install-recommends$packages" >&2
    exit 1
fi

# Debian starts a service as it installs it, and an nginx on port 80 is not what anybody asked for.
policy=/usr/sbin/policy-rc.d
clean_up() {
    if [ -n "${our_policy:-}" ]; then rm -f "$policy"; fi
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
case " $packages " in
    *" nginx "*)
        if [ ! -e "$policy" ]; then
            our_policy=yes
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        ;;
esac

echo "installing:$packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086 # a list of words
install() {
    apt-get -o DPkg::Lock::Timeout=300 update &&
        apt-get -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $packages
}
if ! install >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "apt-get could not install:$packages (log: $log)" >&2
    exit 1
fi
rm -f "$log"
if [ -n "${our_policy:-}" ] && command -v systemctl >/dev/null; then
    # nor at the next start of the machine
    systemctl --quiet disable nginx 2>/dev/null || true
fi
