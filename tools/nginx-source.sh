#!/bin/sh
# Prints the folder of nginx's source, which cargo downloads if it is not there yet.
set -eu
manifest=$(dirname "$0")/nginx-source/Cargo.toml

# Without a target, cargo would also download what the crate needs on other systems.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --quiet --locked --manifest-path "$manifest" --target "$host"

crate=$(cargo metadata --offline --locked --format-version 1 --filter-platform "$host" --manifest-path "$manifest" |
    grep -o '"manifest_path":"[^"]*/nginx-src[^"/]*/Cargo.toml"' | cut -d '"' -f 4)
echo "${crate%/Cargo.toml}/nginx"
