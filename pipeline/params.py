"""Check params.yaml: `python -m pipeline.params`."""

import sys

from pipeline.core.params_file import main

if __name__ == "__main__":
    sys.exit(main())
