#!/bin/sh
# symbols.sh NAME: compares what the module in build/NAME takes from nginx with tools/symbols.txt. What it takes from the
# C library and the compiler's has a version behind an @, or is weak.
set -eu
cd "$(dirname "$0")/.."
module=build/$1/ngx_http_upstream_control_module.so

symbols=$(nm -D --undefined-only "$module")
found=$(echo "$symbols" | awk '
    FILENAME != "-" {
        if ($1 == "weak") is_allowed["w " $2] = 1
        else if ($1 != "" && $1 !~ /^#/) is_allowed["U " $1] = 1
        next
    }
    $2 ~ /@/ || $2 ~ /^_/ && $1 == "w" || ($1 " " $2) in is_allowed { next }
    { print $1, $2 }' tools/symbols.txt -)
if [ -n "$found" ]; then
    echo "symbols: $module takes from nginx what tools/symbols.txt does not have (U: must be there, w: weak):" >&2
    echo "$found" >&2
    exit 1
fi
echo "symbols: $module takes nothing from nginx that may be missing"
