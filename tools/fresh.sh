#!/bin/sh
# `make demo` and `make test` as on a new machine: a clean checkout of the last commit, an empty home, empty caches, and nothing on the path
# but the system's own folders and the Python in question.
#
#   sh tools/fresh.sh python3.11 python3.9        each on the path, of pyenv, or a path; "FRESH=demo" for only one of the two
set -eu
project=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for python in "$@"; do
    real=$(PYTHON="$python" sh "$project/tools/find_python.sh")
    rm -rf "$place/project" "$place/home"
    mkdir -p "$place/home"
    git clone --quiet "$project" "$place/project"
    for target in ${FRESH:-demo test}; do
        echo "fresh: make $target with $real"
        began=$(date +%s)
        env -i HOME="$place/home" PATH="$(dirname "$real"):/usr/local/bin:/usr/bin:/bin" LANG=C.UTF-8 PYTHON="$real" \
            make --no-print-directory -C "$place/project" "$target"
        echo "fresh: make $target passed in $(($(date +%s) - began)) s"
    done
done
