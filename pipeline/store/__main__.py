"""`python -m pipeline.store`."""

import sys

from pipeline.store.command import main

sys.exit(main())
