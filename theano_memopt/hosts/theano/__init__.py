"""Theano 1.0.5 as a host.

    compat      what must be in place before and right after `import theano`
    blas        the OpenBLAS inside SciPy's wheel, for those who have no BLAS
    on_import   registers the pass as soon as Theano is imported, by whomever
    settings    the switches, by Theano's own convention
    sizes       bytes of every variable, before anything ran
    reader      FunctionGraph -> Graph
    rewrite     the optimization `mem_reuse` and the feature that carries order and storage on the FunctionGraph
    vm          cells and withheld clears in Theano's virtual machines
    verify      a machine that catches a plan which corrupts
    probe       runs a function and measures it

Importing this package imports no Theano; its modules do, except `compat`, `blas` and `on_import`.
"""
