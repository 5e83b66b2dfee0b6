"""`python -m pipeline.browser`."""

import sys

from pipeline.browser.command import main

if __name__ == "__main__":
    sys.exit(main())
