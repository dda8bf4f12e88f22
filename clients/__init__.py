"""Programs of people who never heard of this package, run with it and without: `make clients`.

scripts/*.py    Keras models, the classic tutorials and PyMC3; each prints losses, times and a digest of its weights or samples
measured.py     runs one of them, and measures the fifth call of every function that it compiles
table.py        runs each stock and with the pass, compares every bit, and prints the table
"""
