#!/bin/sh
# Unpacks the nginx of Debian's forky, which is newer than the others, into build/debian-forky: root/ has its files and those
# of the libraries that it needs, and nginx is its binary, which runs with these libraries on an older Debian, too.
set -eu
cd "$(dirname "$0")/.."
tree=$PWD/build/debian-forky

if [ -x "$tree/nginx" ]; then exit 0; fi

rm -rf "$tree/root"
mkdir -p "$tree"
unpack() {
    tools/apt-folder.sh "$tree/apt" "s/$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)/forky/g"
    export APT_CONFIG="$tree/apt/apt.conf"
    cd "$tree/apt"
    cat update.log
    apt-get download nginx nginx-dev libc6 libcrypt1 libpcre2-8-0 libssl3t64 libzstd1 zlib1g || return 1
    for package in *.deb; do dpkg-deb -x "$package" "$tree/root" || return 1; done
    set -- "$tree"/root/usr/lib/*/ld-linux*
    patchelf --set-interpreter "$1" --force-rpath --set-rpath "${1%/*}" --output "$tree/nginx" "$tree/root/usr/sbin/nginx"
}
if ! (unpack) >"$tree/unpack.log" 2>&1; then
    tail -n 10 "$tree/unpack.log" >&2
    echo "the nginx of Debian's forky cannot be unpacked: see build/debian-forky/unpack.log" >&2
    exit 1
fi
rm -rf "$tree/apt"
"$tree/nginx" -v
