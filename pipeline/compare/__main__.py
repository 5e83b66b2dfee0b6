"""`python -m pipeline.compare`."""

import sys

from pipeline.compare.command import main

sys.exit(main())
