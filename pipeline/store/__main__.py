"""`python -m pipeline.store`."""

import sys

from pipeline.store.store import main

sys.exit(main())
