"""`python -m pipeline.serve`."""

import sys

from pipeline.serve.command import main

sys.exit(main())
