"""Build and dependencies. `pip install .` is enough to use the package; `make venv` adds the pinned tools of a developer.

Why the pins are as they are
    numpy      1.17 is the oldest that has wheels for Python 3.8; there is no newest, since the planner uses what all of them have
    scipy      likewise 1.4, the first with `maximum_flow`, the outside judge of floors
    [theano]   1.0.5 is the last release; its sdist does not build on Python 3.12, and NumPy 1.24 removes `numpy.bool` and friends, which it uses.
               An environment whose NumPy and SciPy lie in between keeps them
    [test]     every tool at the newest release that still runs on Python 3.8, so that all Pythons test with the same tools
    [solver]   the outside judge of plans with repeats, for nightly tests and a benchmark; any release with Python wheels will do
    [dev]      the same with what `make lint` needs, and one NumPy and SciPy for all, which `make matrix` varies

The compiled parts are optional: where there is no compiler the build goes on without them and the planner runs in Python.
"""

from __future__ import annotations

import glob
import os
import re

from setuptools import Extension, find_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))

THEANO = [
    "theano==1.0.5; python_version < '3.12'",
    "numpy<1.24; python_version < '3.12'",
]
TEST = [
    "rich==13.9.4",
    "pytest==8.3.5",
    "pytest-xdist==3.6.1",
    "hypothesis==6.113.0",
    "parameterized==0.9.0",
]
SOLVER = [
    "ortools>=9.5",
]
DEVELOPER = [
    *TEST,
    "numpy==1.23.5",
    "scipy==1.10.1; python_version < '3.9'",
    "scipy==1.11.4; python_version >= '3.9'",
    "six==1.17.0",
    "nose==1.3.7",
    "ruff==0.17.5",
    "mypy==1.14.1",
    "setuptools==75.3.2",
]


def compiled_parts():
    """One optional extension for each compiled source that the planner has: `planner/_name.c` or `planner/_name.cpp`."""
    sources = sorted(glob.glob(os.path.join(HERE, "theano_memopt", "planner", "_*.c*")))
    return [
        Extension(
            "theano_memopt.planner." + os.path.splitext(os.path.basename(source))[0],
            [os.path.relpath(source, HERE).replace(os.sep, "/")],
            extra_compile_args=["-O2"] + (["-std=c++11"] if source.endswith(".cpp") else []),
            optional=True,
        )
        for source in sources
        if source.endswith((".c", ".cpp"))
    ]


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as text:
        return text.read()


setup(
    name="theano-memopt",
    version=re.search(r'__version__ = "(.+)"', read("theano_memopt/__init__.py")).group(1),
    description="Less memory for compiled Theano functions, with a proof or a floor for how low the peak could go",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    packages=find_packages(include=["theano_memopt", "theano_memopt.*", "theano_memopt_ops"]),
    package_data={"theano_memopt": ["py.typed", "*.html", "*.js", "*.css"], "theano_memopt.report": ["*.html", "*.js", "*.css"]},
    ext_modules=compiled_parts(),
    python_requires=">=3.8",
    install_requires=[
        "numpy>=1.17",
        "scipy>=1.4",
        "rich>=13",
    ],
    extras_require={"theano": THEANO, "test": TEST, "dev": DEVELOPER, "solver": SOLVER},
    classifiers=[
        "License :: OSI Approved :: BSD License",
        "Programming Language :: Python :: 3.8",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
    zip_safe=False,
)
