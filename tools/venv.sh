#!/bin/sh
# Makes the virtual environment and installs Doorward into it, in place.  usage: venv.sh DIRECTORY REQUIREMENT
# A bare Debian has Python without the part that makes environments; with the right to do so, we install it.
# PYTHON=/path/to/python chooses the interpreter.
set -eu
venv=$1
what=$2

say() { printf 'doorward: %s\n' "$*" >&2; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
makes_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# The first one that can do everything; without one, the first one that is new enough.
find_python() {
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        is_new_enough "$candidate" || continue
        [ -n "$python" ] || python=$candidate
        if makes_environments "$candidate"; then
            python=$candidate
            return
        fi
    done
    [ -n "$python" ] || return 1
}

# An environment that was copied or moved would install into the old place, and one whose Python is gone nowhere.
is_whole() {
    told=$("$venv/bin/pip" --version 2>/dev/null) || return 1
    place=${told#* from }
    [ "${place%/lib/*}" -ef "$venv" ]
}

install_venv_package() {
    package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
    as_root=
    [ "$(id -u)" = 0 ] || as_root='sudo -n'
    say "this Python cannot make virtual environments; installing $package"
    export DEBIAN_FRONTEND=noninteractive
    if $as_root apt-get update -qq && $as_root apt-get install -y -qq "$package" >/dev/null; then
        makes_environments "$python" && return
    fi
    say "that did not work. As root: apt-get install $package, then call make again;"
    say "or name another Python 3.11 or newer: make PYTHON=/path/to/python3 ..."
    return 1
}

if ! find_python; then
    say 'Python 3.11 or newer is needed. On Debian 12: apt-get install python3'
    exit 1
fi

if ! is_whole; then
    makes_environments "$python" || install_venv_package || exit 1
    say "making a virtual environment in $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

say "installing $what (a minute the first time)"
"$venv/bin/pip" install --quiet --disable-pip-version-check --editable "$what"
case $what in
    *dev*) touch "$venv/installed" "$venv/installed-dev" ;;
    *) touch "$venv/installed" ;;
esac
