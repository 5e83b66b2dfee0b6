"""`python -m pipeline.bm25`."""

import sys

from pipeline.bm25.stage import bm25
from pipeline.core import stage

sys.exit(stage.run_locales("bm25", bm25))
