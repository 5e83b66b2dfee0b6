"""`python -m pipeline.encoders`."""

import sys

from pipeline.encoders.catalogue.command import main

sys.exit(main())
