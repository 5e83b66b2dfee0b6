"""`python -m pipeline.encoder_scores`."""

import sys

from pipeline.core import stage
from pipeline.encoder_scores.stage import encoder_scores

sys.exit(stage.run_locales("encoder_scores", encoder_scores))
