#!/bin/sh
# nginx-source.sh [NAME]: prints the folder of the source that the tree build/NAME is built from, which is downloaded if it is
# not there yet.
set -eu
cd "$(dirname "$0")/.."

# By cargo, which verifies it: see nginx-source/Cargo.toml.
from_crate() {
    manifest=tools/nginx-source/Cargo.toml
    # Without a target, cargo would also download what the crate needs on other systems.
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo fetch --quiet --locked --manifest-path $manifest --target "$host"

    crate=$(cargo metadata --offline --locked --format-version 1 --filter-platform "$host" --manifest-path $manifest |
        grep -o '"manifest_path":"[^"]*/nginx-src[^"/]*/Cargo.toml"' | cut -d '"' -f 4)
    echo "${crate%/Cargo.toml}/nginx"
}

# By apt, which verifies it: what nginx's authors released as the version that nginx-dev has the headers of.
from_debian() {
    version=$(dpkg-query -W -f '${source:Upstream-Version}' nginx-dev)
    folder=$PWD/build/debian-source
    source=$folder/nginx-$version
    if [ ! -d "$source" ]; then
        tools/apt-folder.sh "$folder" 's/^deb /deb-src /; s/^Types:.*/Types: deb-src/'
        if ! (cd "$folder" && download_from_debian) >"$folder/log" 2>&1; then
            cat "$folder/update.log" "$folder/log" | tail -n 10 >&2
            echo "apt-get cannot download the source of Debian's nginx $version: see build/debian-source/log" >&2
            return 1
        fi
    fi
    echo "$source"
}

download_from_debian() {
    export APT_CONFIG="$folder/apt.conf"
    revision=$(apt-cache showsrc nginx | sed -n "s/^Version: \($version-.*\)/\1/p" | tail -n 1)
    apt-get source --download-only --tar-only "nginx=$revision" && tar -xzf "nginx_$version.orig.tar.gz" &&
        rm -rf lists cache
}

case ${1:-} in
    debian-objs) from_debian ;;
    *) from_crate ;;
esac
