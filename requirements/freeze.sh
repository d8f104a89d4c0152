#!/bin/sh
# freeze.sh ENVIRONMENT FILE: write what is installed as plain `name==version` lines, independent of any package index.
set -eu
environment=$1
file=$2

{
    echo '# Versions that development and the tests use; renew with `make lock`.'
    "$environment/bin/python" -m pip freeze --all --exclude lapel --exclude setuptools --exclude wheel | LC_ALL=C sort -f
} >"$file.new"
if grep -vE '^(#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+)$' "$file.new" >&2; then
    rm -f "$file.new"
    echo "freeze.sh: the lines above do not name a released version; $file is unchanged" >&2
    exit 1
fi
mv "$file.new" "$file"
