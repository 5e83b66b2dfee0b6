"""`python -m pipeline.similar`."""

import sys

from pipeline.core import stage
from pipeline.similar.stage import similar

sys.exit(stage.run_locales("similar", similar))
