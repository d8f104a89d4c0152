#!/bin/sh
# make-venv.sh PYTHON DIRECTORY: create a virtual environment with pip, also where the system's Python lacks ensurepip.
set -eu
python=$1
directory=$2

fail() {
    echo "lapel: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "'$python' was not found. Install Python 3.11 or later, or name it: PYTHON=/path/to/python3 make ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version 2>&1) is too old; 3.11 or later is needed. Name another: PYTHON=python3.12 make ..."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$directory"
elif "$python" -m virtualenv --version >/dev/null 2>&1; then
    "$python" -m virtualenv --quiet --python "$python" "$directory"
elif "$python" -c 'import venv' 2>/dev/null && "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --without-pip "$directory"
    "$python" -m pip --quiet --python "$directory/bin/python" install pip
else
    fail "'$python' cannot create virtual environments. On Debian and Ubuntu: sudo apt install python$version-venv"
fi
