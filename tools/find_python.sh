#!/bin/sh
# Prints the path of a Python 3.8 to 3.11 that can make an environment, or says in one line what is missing.
# Looked for in this order: $PYTHON; python3.11 ... python3.8, python3 and python on the path; pyenv's versions; `uv python install 3.11`.
# LAST=13 allows a PYTHON up to 3.13, for the planner alone.
LAST=${LAST:-11}

fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, int(sys.argv[1])))' "$LAST" >/dev/null 2>&1
}

answer() {
    "$1" -c 'import sys; print(sys.executable)'
    exit 0
}

if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" && answer "$PYTHON"
    # `python3.9` may be pyenv's and not on the path: look for that very version there.
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/"$(basename "$PYTHON")"; do
        fits "$candidate" && answer "$candidate"
    done
    path=$(uv python find --no-python-downloads "${PYTHON#python}" 2>/dev/null) && fits "$path" && answer "$path"
    echo "PYTHON=$PYTHON is not a Python 3.8 to 3.$LAST with the venv module; name one that is, or leave PYTHON out." >&2
    exit 1
fi

for name in python3.11 python3.10 python3.9 python3.8 python3 python; do
    path=$(command -v "$name" 2>/dev/null) && fits "$path" && answer "$path"
done

for minor in 11 10 9 8; do
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.$minor.*/bin/python; do
        fits "$candidate" && answer "$candidate"
    done
done

if command -v uv >/dev/null 2>&1 && uv python install 3.11 >&2; then
    path=$(uv python find 3.11 2>/dev/null) && fits "$path" && answer "$path"
fi

echo "No Python 3.8 to 3.11 with the venv module was found, nor could 'uv python install 3.11' get one: install python3.11 and python3.11-venv, or name one with PYTHON=." >&2
exit 1
