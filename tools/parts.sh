#!/bin/sh
# parts.sh TARGET...: makes one target after the other, says how long each took, and ends with a table of them. The
# first that fails is the last that runs.
set -eu
cd "$(dirname "$0")/.."

table='' status=0
add() {
    table="$table$(printf '%-14s %6s  %s' "$1" "$2" "$3")
"
}

began=$(date +%s)
for part in "$@"; do
    if [ $status != 0 ]; then
        add "$part" - "not run"
        continue
    fi
    echo "=== $part"
    start=$(date +%s)
    ${MAKE:-make} --no-print-directory "$part" || status=$?
    seconds=$(($(date +%s) - start))
    if [ $status = 0 ]; then result=passed; else result=FAILED; fi
    echo "=== $part: $result, $seconds s"
    add "$part" "$seconds s" $result
done

if [ $status = 0 ]; then result=passed; else result=FAILED; fi
add total "$(($(date +%s) - began)) s" $result
printf '\n%s' "$table"
exit $status
