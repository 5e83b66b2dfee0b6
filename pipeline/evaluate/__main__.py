"""`python -m pipeline.evaluate`."""

import sys

from pipeline.core import stage
from pipeline.evaluate.stage import evaluate

sys.exit(stage.run_locales("evaluate", evaluate))
