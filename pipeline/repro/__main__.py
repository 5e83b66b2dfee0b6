"""`python -m pipeline.repro`."""

import sys

from pipeline.repro.command import main

sys.exit(main())
