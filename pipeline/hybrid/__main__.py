"""`python -m pipeline.hybrid`."""

import sys

from pipeline.core import stage
from pipeline.hybrid.stage import hybrid

sys.exit(stage.run_locales("hybrid", hybrid))
