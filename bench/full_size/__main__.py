"""`python -m bench.full_size`."""

import sys

from bench.full_size.command import main

sys.exit(main())
