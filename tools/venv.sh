#!/bin/sh
# Makes the virtual environment and installs Doorward into it, in place.  usage: venv.sh DIRECTORY REQUIREMENT
# A bare Debian has Python without the part that makes environments; with the right to do so, we install it.
set -eu
venv=$1
what=$2

say() { printf 'doorward: %s\n' "$*" >&2; }

python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say 'Python 3.11 or newer is needed. On Debian 12: apt-get install python3'
    exit 1
fi

if [ ! -x "$venv/bin/pip" ]; then
    say "making a virtual environment in $venv"
    rm -rf "$venv"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
        as_root=
        [ "$(id -u)" = 0 ] || as_root='sudo -n'
        say "this Python cannot make virtual environments; installing $package"
        if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq "$package" >/dev/null; }; then
            say "that did not work. As root: apt-get install $package, then call make again"
            exit 1
        fi
    fi
    "$python" -m venv "$venv"
fi

say "installing $what (a minute the first time)"
"$venv/bin/pip" install --quiet --disable-pip-version-check --editable "$what"
case $what in
    *dev*) touch "$venv/installed" "$venv/installed-dev" ;;
    *) touch "$venv/installed" ;;
esac
