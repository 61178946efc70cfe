"""`python -m genprior`, for launchers of several processes."""

import sys

from genprior.cli import main

if __name__ == "__main__":
    sys.exit(main())
