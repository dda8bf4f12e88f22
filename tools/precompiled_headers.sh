#!/bin/sh
# Theano's C files all begin with the same headers, and g++ spends most of its time on them. This reads them once:
#
#   sh tools/precompiled_headers.sh PYTHON FOLDER FLAGS      then compile with FLAGS and -IFOLDER before all other folders
#
# g++ takes the result only where every flag that matters is the same, and else the plain header, so it can only save time.
set -eu
python=$1 folder=$2 flags=$3
mkdir -p "$folder"
echo '#include_next <Python.h>' > "$folder/Python.h"
cat > "$folder/all.h" <<'HEADERS'
#include <Python.h>
#include <iostream>
#include <vector>
#include <algorithm>
#include <math.h>
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>
HEADERS
includes=$("$python" -c "import sysconfig, numpy; print('-I' + sysconfig.get_paths()['include'], '-I' + numpy.get_include())")
# -g, -m64, -fPIC and the macro are what Theano itself adds.
# shellcheck disable=SC2086
if g++ -g $flags -m64 -fPIC -DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION -w $includes -x c++-header -o "$folder/Python.h.gch.new" "$folder/all.h" 2>/dev/null; then
    mv "$folder/Python.h.gch.new" "$folder/Python.h.gch"
else
    rm -f "$folder/Python.h.gch.new"
fi
