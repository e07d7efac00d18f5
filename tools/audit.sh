#!/bin/sh
# Checks the dependencies with cargo-deny, by the rules in deny.toml.
# The advisories come from https://github.com/rustsec/advisory-db. Where that cannot be reached, ADVISORY_DB=/path names a
# clone of it; AUDIT_OFFLINE=1 leaves the advisories out, and says so.
set -eu
cd "$(dirname "$0")/.."

deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
    deny=build/tools/bin/cargo-deny
    if [ ! -x $deny ]; then
        cargo install --quiet --locked cargo-deny --version '^0.20' --root build/tools
    fi
fi

# Findings only: the notes about crates that are as they should be are long.
$deny --locked --log-level error check licenses bans sources

if [ "${AUDIT_OFFLINE:-}" = 1 ]; then
    echo "audit: NOT CHECKED for known vulnerabilities, because of AUDIT_OFFLINE=1" >&2
    exit 0
fi
if [ -n "${ADVISORY_DB:-}" ]; then
    # cargo-deny clones with git, and git can be told to look elsewhere
    export GIT_CONFIG_COUNT=1
    export GIT_CONFIG_KEY_0="url.file://$ADVISORY_DB.insteadOf"
    export GIT_CONFIG_VALUE_0=https://github.com/rustsec/advisory-db
fi
if ! $deny --locked --log-level off fetch db >/dev/null 2>&1; then
    echo "audit: FAILED, not checked for known vulnerabilities: the database cannot be fetched (see tools/audit.sh)" >&2
    exit 1
fi
$deny --locked --log-level error check advisories
