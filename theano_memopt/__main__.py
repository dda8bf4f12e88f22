"""`python -m theano_memopt VERB ...`: see commands/menu.py."""

import sys

from theano_memopt.commands.menu import main

if __name__ == "__main__":
    sys.exit(main())
