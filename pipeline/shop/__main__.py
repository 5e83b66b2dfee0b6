"""`python -m pipeline.shop`."""

import sys

from pipeline.shop.command import main

if __name__ == "__main__":
    sys.exit(main())
