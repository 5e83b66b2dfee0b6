"""`python -m pipeline.pairs`."""

import sys

from pipeline.core import stage
from pipeline.pairs.stage import pairs

sys.exit(stage.run_names("pairs", pairs, "trained"))
