#!/bin/sh
# Installs the peers that are Python programs, each into a virtual environment of its own in the bench's cache,
# where the bench looks for them. Removing the directory removes them.  usage: python_peers.sh
set -eu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/doorward-bench

install() {
    name=$1
    shift
    "${PYTHON:-python3}" -m venv "$cache/$name"
    "$cache/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
    printf '%s\n' "$cache/$name"
}

install mitmproxy mitmproxy
install pproxy pproxy 'uvloop<0.22' # it takes uvloop where there is one, and does not start with 0.22
install proxy.py proxy.py
