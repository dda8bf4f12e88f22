"""Theano 1.0.5 as a host. The folders say when something happens:

    install     before and right after `import theano`: what it needs here, and what is wrapped (install/patches.py, a table)
    read        FunctionGraph -> Graph
    optimize    the optimization `mem_reuse`, and the feature that carries order and storage on the FunctionGraph
    run         cells, arena, and the machines that run the planned order
    measure     one call, measured; Theano's own profiler; a whole program
    explain     all of that in a report

Importing this package imports no Theano. It installs the hook that registers the pass once Theano is there.
"""

from theano_memopt.hosts.theano.install import import_hook

import_hook.install()
