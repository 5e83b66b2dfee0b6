"""`python -m pipeline.clean`."""

import sys

from pipeline.clean.stage import clean
from pipeline.core import stage

sys.exit(stage.run_locales("clean", clean))
