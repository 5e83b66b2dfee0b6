"""`python -m pipeline.search`."""

import sys

from pipeline.core.interrupts import quit_at_once

with quit_at_once("search"):
    from pipeline.search.command import main

sys.exit(main())
