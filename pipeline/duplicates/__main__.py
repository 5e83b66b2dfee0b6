"""`python -m pipeline.duplicates`."""

import sys

from pipeline.core import stage
from pipeline.duplicates.stage import duplicates

sys.exit(stage.run_locales("duplicates", duplicates))
