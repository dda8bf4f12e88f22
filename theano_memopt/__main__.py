"""`python -m theano_memopt VERB ...`: see cli.py."""

import sys

from theano_memopt.cli import main

if __name__ == "__main__":
    sys.exit(main())
