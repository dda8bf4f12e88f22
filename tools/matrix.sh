#!/bin/sh
# The quick tests on every Python that Theano runs on, each with a NumPy and SciPy of its time, and the planner alone on the newest Python.
#
#   sh tools/matrix.sh [3.8 3.9 ...]       all rows, or those named; each in an environment of its own below .matrix/
#
# A Python that is not there is said at the end. Status: 0 all that ran passed, 1 one failed, 2 none could run.
set -u
cd "$(dirname "$0")/.." || exit 2
CXXFLAGS="-O0 -g0 -fno-math-errno -march=native"
WORKERS=${WORKERS:-2}
summary="" ran=0 failed=0

# note ROW SENTENCE: what is told at the end.
note() {
    summary="$summary
  $1: $2"
    echo "matrix: $1: $2"
}

# try NAME PYTHON EXTRAS PACKAGES: make the environment unless it is there, and run the quick tests in it.
try() {
    name=$1 python=$2 extras=$3 packages=$4
    place=$PWD/.matrix/$name
    run=$place/bin/python
    if [ ! -e "$place/.made" ] || [ setup.py -nt "$place/.made" ] || ! "$run" -c '' 2>/dev/null; then
        # shellcheck disable=SC2086
        "$python" -m venv --clear "$place" &&
            "$run" -m pip install --quiet --disable-pip-version-check setuptools==75.3.2 wheel==0.45.1 &&
            "$run" -m pip install --quiet --disable-pip-version-check -e ".[$extras]" $packages &&
            touch "$place/.made" || { failed=1; note "$name" "FAILED: its environment could not be made"; return; }
    fi
    if ! "$run" setup.py --quiet build_ext --inplace; then
        failed=1
        note "$name" "FAILED: the planner's compiled parts could not be built"
        return
    fi
    versions=$("$run" -c 'import numpy, scipy, sys; print("Python %d.%d.%d, NumPy %s, SciPy %s" % (*sys.version_info[:3], numpy.__version__, scipy.__version__))')
    sh tools/precompiled_headers.sh "$run" "$place/headers" "$CXXFLAGS"
    ran=1
    if COMPILED=$place/compiled THEANO_FLAGS="base_compiledir=$place/theano,compile.wait=1,cxx=$PWD/tools/once/g++,gcc.cxxflags=$CXXFLAGS -I$place/headers" \
        "$run" -m pytest -q -n "$WORKERS" -m "quick and not nightly" -p no:cacheprovider; then
        note "$name" "passed ($versions)"
    else
        failed=1
        note "$name" "FAILED ($versions)"
    fi
}

# row NAME EXTRAS PACKAGES PYTHON...: with the first of these Pythons that is there.
row() {
    name=$1 extras=$2 packages=$3
    shift 3
    for wanted in "$@"; do
        if python=$(LAST=14 PYTHON=$wanted sh tools/find_python.sh 2>/dev/null); then
            try "$name" "$python" "$extras" "$packages"
            return
        fi
    done
    note "$name" "NOT RUN: there is no $(echo "$*" | sed 's/ / or /g') (on the path, of pyenv or of uv)"
}

for name in ${*:-3.8 3.9 3.10 3.11 newest}; do
    case $name in
        3.8) row 3.8 theano,test "numpy==1.21.6 scipy==1.7.3" python3.8 ;;
        3.9) row 3.9 theano,test "numpy==1.22.4 scipy==1.8.1" python3.9 ;;
        3.10) row 3.10 theano,test "numpy==1.23.5 scipy==1.9.3" python3.10 ;;
        3.11) row 3.11 theano,test "numpy==1.23.5 scipy==1.15.3" python3.11 ;;
        newest) row newest test "numpy>=2 scipy" python3.14 python3.13 python3.12 ;;
        *) echo "matrix: there is no row $name; there are 3.8 3.9 3.10 3.11 newest" >&2; exit 2 ;;
    esac
done
echo "matrix:$summary"
[ $ran = 1 ] || exit 2
exit $failed
