"""`python -m pipeline.index_entry`."""

import sys

from pipeline.core import stage
from pipeline.index_entry.stage import index_entry

sys.exit(stage.run_locales("index_entry", index_entry))
