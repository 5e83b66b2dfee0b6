"""`python -m pipeline.search`."""

import sys

from pipeline.search.command import main

sys.exit(main())
