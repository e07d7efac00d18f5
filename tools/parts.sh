#!/bin/sh
# parts.sh STEP...: makes one target after the other, says how long each took, and ends with a table of them. A step of
# several targets, a+b, makes them at the same time, and prints what they said when they have ended. The first step that
# fails is the last that runs.
set -eu
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# what runs in the background does not get Ctrl-C
trap 'trap "" TERM; kill 0; exit 1' INT TERM

table='' status=0

# part TARGET: makes it, and leaves its row of the table in a file
part() {
    start=$(date +%s) result=passed
    ${MAKE:-make} --no-print-directory "$1" || result=FAILED
    row "$1" "$(($(date +%s) - start)) s" $result >"$logs/$1.row"
    echo "=== $1: $result, $(($(date +%s) - start)) s"
    [ $result = passed ]
}

row() { printf '%-20s %6s  %s\n' "$@"; }

began=$(date +%s)
for step in "$@"; do
    targets=$(echo "$step" | tr + ' ')
    echo "=== $step"
    if [ "$targets" = "$step" ]; then
        part "$step" || status=1
    else
        pids=''
        for target in $targets; do
            part "$target" >"$logs/$target.log" 2>&1 &
            pids="$pids $!"
        done
        for pid in $pids; do wait "$pid" || status=1; done
        for target in $targets; do cat "$logs/$target.log"; done
    fi
    for target in $targets; do table="$table$(cat "$logs/$target.row")
"; done
    if [ $status != 0 ]; then break; fi
done

if [ $status = 0 ]; then result=passed; else result=FAILED; fi
printf '\n%s' "$table"
row total "$(($(date +%s) - began)) s" $result
exit $status
