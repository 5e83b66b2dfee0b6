"""`python -m pipeline.since`."""

import sys

from pipeline.since.command import main

sys.exit(main())
