#!/bin/sh
# The native relay.  usage: native.sh build|require|check VENV
# build    into the virtual environment; without cargo, or when that fails, say so: the relay in Python serves as well
# require  the same, and fail
# check    where cargo is: its formatting, lints and tests
set -eu
what=$1
venv=$2

say() { printf 'doorward: %s\n' "$*" >&2; }

if ! command -v cargo >/dev/null; then
    say "no cargo here, so no native relay; the one in Python serves. For the other: install Rust 1.85 or newer"
    [ "$what" != require ]
    exit
fi

if [ "$what" = check ]; then
    cd native
    cargo fmt --check
    cargo clippy --quiet --locked --all-targets -- -D warnings
    cargo test --quiet --locked --no-default-features
    exit
fi

say 'building the native relay (a minute the first time)'
if "$venv/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps ./native; then
    touch "$venv/native-built"
else
    rm -f "$venv/native-built"
    say 'that did not work, see above; the relay in Python serves'
    [ "$what" != require ]
fi
