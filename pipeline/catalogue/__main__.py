"""`python -m pipeline.catalogue`."""

import sys

from pipeline.catalogue.stage import catalogue
from pipeline.core import stage

sys.exit(stage.run_locales("catalogue", catalogue))
