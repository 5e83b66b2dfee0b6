"""`python -m pipeline.index`."""

import sys

from pipeline.core import stage
from pipeline.index.stage import index

sys.exit(stage.run_locales("index", index))
