"""`python -m genprior`, as launchers of several processes want it."""

import sys

from genprior.cli import main

if __name__ == "__main__":
    sys.exit(main())
