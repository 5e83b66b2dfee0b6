"""`python -m pipeline.retrieve`."""

import sys

from pipeline.core import stage
from pipeline.retrieve.stage import retrieve

sys.exit(stage.run_locales("retrieve", retrieve))
