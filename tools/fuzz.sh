#!/bin/sh
# fuzz.sh check: lints the fuzz targets and runs each for a second on its seeds and changes of them, by the driver that needs no more than cargo.
# fuzz.sh run SECONDS: runs each for so long, by libFuzzer where there is a C++ compiler for it, else by that driver. What
# is found goes into build/fuzz.
set -eu
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="$PWD/build/fuzz"
fuzz=$PWD/fuzz

# targets COMMAND...: runs COMMAND with each target's name behind it
targets() {
    for target in "$fuzz"/seeds/*; do
        "$@" "$(basename "$target")"
    done
}

seeds() {
    "$CARGO_TARGET_DIR/release/$1" -max_total_time=1 "$fuzz/seeds/$1" >/dev/null
}

case ${1:-} in
    check)
        cd "$fuzz"
        cargo fmt --check
        cargo clippy --quiet --locked --no-default-features --all-targets -- -D warnings
        cargo build --quiet --locked --release --no-default-features
        targets seeds
        exit
        ;;
    run) seconds=${2:?seconds} ;;
    *)
        echo "usage: $0 check | run SECONDS" >&2
        exit 1
        ;;
esac

# fuzz NAME
fuzz() {
    echo "fuzz: $1, $seconds s, $driver"
    corpus=$CARGO_TARGET_DIR/corpus/$1
    mkdir -p "$corpus" "$CARGO_TARGET_DIR/artifacts"
    # the limit of a query is beyond libFuzzer's own
    if ! "$programs/$1" -max_total_time="$seconds" -max_len=70000 -artifact_prefix="$CARGO_TARGET_DIR/artifacts/" \
        "$corpus" "$fuzz/seeds/$1" >"$CARGO_TARGET_DIR/$1.log" 2>&1; then
        tail -n 40 "$CARGO_TARGET_DIR/$1.log" >&2
        echo "fuzz: $1 failed; the log is $CARGO_TARGET_DIR/$1.log" >&2
        exit 1
    fi
    tail -n 1 "$CARGO_TARGET_DIR/$1.log"
}

cd "$fuzz"
if command -v "${CXX:-c++}" >/dev/null; then
    driver=libFuzzer
    # the stable compiler takes the flags of a nightly one
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
        -Ccodegen-units=1 -Cdebug-assertions" \
        cargo build --quiet --locked --release --target x86_64-unknown-linux-gnu
    programs=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release
else
    driver="the driver of this project"
    cargo build --quiet --locked --release --no-default-features
    programs=$CARGO_TARGET_DIR/release
fi
targets fuzz
