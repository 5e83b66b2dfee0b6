"""`python -m pipeline.systems`."""

import sys

from pipeline.core import stage
from pipeline.systems.stage import systems

sys.exit(stage.run_locales("systems", systems))
