"""`python -m pipeline.tradeoff`."""

import sys

from pipeline.tradeoff.command import main

sys.exit(main())
